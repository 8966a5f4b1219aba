"""A program for tests and benches, that knows nothing of netcon: a server of byte streams, and its client.

    python3 streams.py serve ADDRESS PORT
    python3 streams.py {download,upload,both,pull,push} ADDRESS PORT BYTES [STREAMS]
    python3 streams.py {exchange,connect} ADDRESS PORT COUNT

download and upload move BYTES over each of STREAMS connections, both does both at once. The SHA-256 of each transfer is computed
where the bytes arrive and compared with that of what was sent. pull and push, for benches, are download and upload without that.
exchange sends one byte and waits for one byte, COUNT times; connect makes COUNT connections for one such exchange each. The client
prints JSON: seconds, and what SO_SNDBUF and SO_RCVBUF say; exchange also the time of the median exchange, in microseconds.
"""

from __future__ import annotations

import hashlib
import json
import socket
import socketserver
import statistics
import struct
import sys
import threading
import time

ORDER = struct.Struct("!cQQ")  # what to do, how many bytes, which content
BLOCK = 1 << 20


def content(number: int, count: int) -> list[memoryview]:
    """`count` bytes that no other content has, in blocks; the same blocks repeated, so that making them costs nothing."""
    block = hashlib.shake_256(b"content %d" % number).digest(BLOCK)
    view = memoryview(block)
    return [view[: min(BLOCK, count - start)] for start in range(0, count, BLOCK)]


def digest(number: int, count: int) -> bytes:
    whole = hashlib.sha256()
    for block in content(number, count):
        whole.update(block)
    return whole.digest()


def send(connection: socket.socket, number: int, count: int) -> None:
    for block in content(number, count):
        connection.sendall(block)


def receive(connection: socket.socket, count: int, check: bool = True) -> bytes:
    """The SHA-256 of the next `count` bytes (of nothing if not `check`); EOFError when they do not come."""
    whole, buffer, left = hashlib.sha256(), memoryview(bytearray(BLOCK)), count
    while left:
        size = connection.recv_into(buffer[: min(BLOCK, left)])
        if not size:
            raise EOFError(f"{left} of {count} bytes are missing")
        if check:
            whole.update(buffer[:size])
        left -= size
    return whole.digest()


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError(f"{count - len(data)} of {count} bytes are missing")
        data += part
    return data


class Handler(socketserver.BaseRequestHandler):
    """S: sends, R: receives and answers with the SHA-256, D: receives and answers, E: echoes single bytes."""

    def handle(self) -> None:
        first = self.request.recv(1)
        if not first:
            return  # somebody looked whether we are here
        what, count, number = ORDER.unpack(first + exactly(self.request, ORDER.size - 1))
        if what == b"S":
            send(self.request, number, count)
        elif what in (b"R", b"D"):
            self.request.sendall(receive(self.request, count, what == b"R"))
        else:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := self.request.recv(1):
                self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def transfer(address: str, port: int, down: bool, count: int, number: int, check: bool) -> None:
    with socket.create_connection((address, port)) as connection:
        connection.sendall(ORDER.pack(b"S" if down else b"R" if check else b"D", count, number))
        if down:
            arrived = receive(connection, count, check)
        else:
            send(connection, number, count)
            arrived = exactly(connection, 32)
    if check and arrived != digest(number, count):
        raise ValueError(f"stream {number} arrived damaged")


def together(jobs: list[tuple[str, int, bool, int, int, bool]]) -> None:
    """All transfers at once; raises the first failure."""
    failures: list[Exception] = []

    def run(job: tuple[str, int, bool, int, int, bool]) -> None:
        try:
            transfer(*job)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def exchange(address: str, port: int, count: int) -> list[float]:
    """The seconds that each of `count` exchanges of one byte took, on one connection."""
    times = []
    with socket.create_connection((address, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(ORDER.pack(b"E", 0, 0))
        for _ in range(count):
            begin = time.perf_counter()
            connection.sendall(b"x")
            exactly(connection, 1)
            times.append(time.perf_counter() - begin)
    return times


def main() -> None:
    what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "serve":
        Server.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with Server((address, port), Handler) as server:
            server.serve_forever()
    count, streams = int(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else 1
    said: dict[str, float] = {}
    begin = time.perf_counter()
    if what == "connect":
        for _ in range(count):
            exchange(address, port, 1)
    elif what == "exchange":
        said["median"] = statistics.median(exchange(address, port, count)) * 1e6
    else:
        ways = {"download": (True,), "pull": (True,), "upload": (False,), "push": (False,), "both": (True, False)}[what]
        check = what not in ("pull", "push")
        together([(address, port, down, count, number, check) for number in range(streams) for down in ways])
    said["seconds"] = time.perf_counter() - begin
    with socket.create_connection((address, port)) as connection:
        for name in ("SO_SNDBUF", "SO_RCVBUF"):
            said[name] = connection.getsockopt(socket.SOL_SOCKET, getattr(socket, name))
    print(json.dumps(said))


if __name__ == "__main__":
    main()
