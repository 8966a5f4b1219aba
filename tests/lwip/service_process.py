"""A socket server in a process of its own, with a limit of descriptors and a user.

    python -m tests.lwip.service_process LIMIT UID

Says the path of its socket, then obeys lines: `count NAME`, `fill` (put descriptors in flight, more than LIMIT), `empty`.
"""

from __future__ import annotations

import array
import os
import resource
import socket
import sys

from tests.lwip.service import HERE, Service


def main(limit: int, uid: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    service = Service()
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    many = array.array("i", [here.fileno()] * 253)
    print(service.path, HERE, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["count", name]:
                print(service.count(name), flush=True)
            case ["fill"]:
                for _ in range(limit // len(many) + 1):
                    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
                print("full", flush=True)
            case ["empty"]:
                there.close()
                print("empty", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
