"""Datagrams a second through UDP → ring → Python → ring → UDP, against a plain Python socket loop in the same run.

Both echo what a native-speed peer (one more reactor) sends; the figure that holds between machines is the ratio.

    python -m tests.bench.bench_rings [datagrams]
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time

from netcon.dataplane.reactor import Reactor

SIZE, WINDOW, ROUNDS = 1432, 256, 5
V4 = socket.inet_aton("127.0.0.1")


def drive(port: int, count: int) -> float:
    """Send `count` datagrams to the echo at `port`, at most WINDOW unanswered; datagrams a second."""
    peer = Reactor()
    peer.start()
    number, _ = peer.bind_udp("127.0.0.1", 0)
    entry = (number, (V4, port), bytes(SIZE), 0)
    ready = select.poll()
    ready.register(peer.fileno(), select.POLLIN)
    sent = back = 0
    begin = time.perf_counter()
    while back < count:
        if allowed := min(WINDOW - (sent - back), count - sent):
            sent += peer.send_datagrams([entry] * allowed)
        if not ready.poll(10_000):
            raise TimeoutError(f"{count - back} datagrams were lost")
        back += len(peer.receive()[0])
    seconds = time.perf_counter() - begin
    peer.stop()
    return count / seconds


def rings(count: int) -> float:
    echo = Reactor()
    echo.start()
    number, port = echo.bind_udp("127.0.0.1", 0)
    ready = select.poll()
    ready.register(echo.fileno(), select.POLLIN)

    def run() -> None:
        left, waiting = count, []
        while left:
            ready.poll(10_000)
            waiting += [(number, remote, data, 0) for _, remote, data in echo.receive()[0]]
            taken = echo.send_datagrams(waiting)
            left -= taken
            del waiting[:taken]

    thread = threading.Thread(target=run)
    thread.start()
    rate = drive(port, count)
    thread.join()
    echo.stop()
    return rate


def plain(count: int) -> float:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

        def run() -> None:
            for _ in range(count):
                data, remote = echo.recvfrom(10_100)
                echo.sendto(data, remote)

        thread = threading.Thread(target=run)
        thread.start()
        rate = drive(echo.getsockname()[1], count)
        thread.join()
    return rate


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    pairs = [(rings(count), plain(count)) for _ in range(ROUNDS)]
    with_rings, with_socket = (sorted(column)[ROUNDS // 2] for column in zip(*pairs, strict=True))
    ratio = sorted(a / b for a, b in pairs)[ROUNDS // 2]
    print(f"UDP → ring → Python → ring → UDP: {with_rings:,.0f} datagrams/s of {SIZE} bytes")
    print(f"recvfrom and sendto in Python:    {with_socket:,.0f} datagrams/s")
    print(f"ratio: {ratio:.2f}")


if __name__ == "__main__":
    main()
