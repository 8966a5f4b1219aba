"""A program for tests that keeps one TCP connection in use. It knows nothing of netcon.

    python3 pinger.py serve ADDRESS PORT
    python3 pinger.py ping ADDRESS PORT

`ping` sends a number ten times a second, waits for its echo, and prints it. It connects until it is let in once; then the
connection must last.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import time


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def connect(address: str, port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection((address, port))
        except OSError:
            time.sleep(0.2)


def main() -> None:
    what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "serve":
        with Server((address, port), Echo) as server:
            server.serve_forever()
    with connect(address, port) as connection, connection.makefile("rb") as answers:
        number = 0
        while True:
            number += 1
            connection.sendall(b"%d\n" % number)
            answer = answers.readline()
            if answer != b"%d\n" % number:
                sys.exit(f"{answer!r} came back for {number}")
            print(number, flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
