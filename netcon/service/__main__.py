"""`python -m netcon.service HOME`: the service itself, as `netcon service -d` starts it in the background."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from netcon.core.errors import NetconError
from netcon.service.service import main


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m netcon.service")
    parser.add_argument("home", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--ready-fd", type=int, help="write here once, when the service answers")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    home = arguments.home.absolute()
    os.chdir("/")  # keep no file system busy

    def ready() -> None:
        if arguments.ready_fd is not None:
            os.write(arguments.ready_fd, b"1")
            os.close(arguments.ready_fd)

    if arguments.ready_fd is not None:
        os.set_inheritable(arguments.ready_fd, False)
    try:
        main(home, port=arguments.port, ready=ready)
    except NetconError as error:
        sys.exit(f"netcon service: {error}")
