"""A program for tests, that knows nothing of netcon: echoes UDP datagrams, or has them echoed.

    python3 datagrams.py serve ADDRESS PORT
    python3 datagrams.py ask ADDRESS PORT COUNT

ask sends COUNT datagrams of different sizes, a few at a time, until each has come back unchanged, and prints how many it
had to send.
"""

from __future__ import annotations

import hashlib
import select
import socket
import sys

QUIET_S = 0.5
AT_ONCE = 8


def datagram(number: int) -> bytes:
    return number.to_bytes(4) + hashlib.shake_256(b"%d" % number).digest(number * 97 % 6000)


def make(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(address: str, port: int) -> None:
    with make(address) as sock:
        sock.bind((address, port))
        while True:
            data, peer = sock.recvfrom(1 << 16)
            sock.sendto(data, peer)


def ask(address: str, port: int, count: int) -> int:
    sent = 0
    with make(address) as sock:
        sock.connect((address, port))
        for start in range(0, count, AT_ONCE):
            missing = {number: datagram(number) for number in range(start, min(start + AT_ONCE, count))}
            while missing:
                for data in missing.values():
                    sock.send(data)
                    sent += 1
                while missing and select.select([sock], [], [], QUIET_S)[0]:
                    data = sock.recv(1 << 16)
                    number = int.from_bytes(data[:4])
                    if data != datagram(number):
                        sys.exit(f"datagram {number} was changed on its way")
                    missing.pop(number, None)
    return sent


if __name__ == "__main__":
    what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "serve":
        serve(address, port)
    print(ask(address, port, int(sys.argv[4])))
