"""Datagrams a second through UDP → ring → Python → ring → UDP, against a plain Python socket loop in the same run.

Both echo what a second process sends through a reactor of its own; the figures that hold between machines are the ratios.

    python -m tests.bench.bench_rings [datagrams]
"""

from __future__ import annotations

import select
import socket
import statistics
import subprocess
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


def measure(port: int, count: int) -> tuple[float, float]:
    """Have another process drive the echo at `port`: (datagrams a second, CPU µs of this process for each)."""
    cpu = time.process_time()
    driver = [sys.executable, "-m", "tests.bench.bench_rings", "--drive", str(port), str(count)]
    rate = float(subprocess.run(driver, check=True, capture_output=True, text=True).stdout)
    return rate, (time.process_time() - cpu) / count * 1e6


def rings(count: int) -> tuple[float, float]:
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
    result = measure(port, count)
    thread.join()
    echo.stop()
    return result


def plain(count: int) -> tuple[float, float]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

        def run() -> None:
            for _ in range(count):
                data, remote = echo.recvfrom(10_100)
                echo.sendto(data, remote)

        thread = threading.Thread(target=run)
        thread.start()
        result = measure(echo.getsockname()[1], count)
        thread.join()
    return result


def main() -> None:
    if sys.argv[1:2] == ["--drive"]:
        print(drive(int(sys.argv[2]), int(sys.argv[3])))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    pairs = [(rings(count), plain(count)) for _ in range(ROUNDS)]
    for name, column in (("UDP → ring → Python → ring → UDP", 0), ("recvfrom and sendto in Python", 1)):
        rate, cpu = (statistics.median(pair[column][figure] for pair in pairs) for figure in (0, 1))
        print(f"{name}: {rate:,.0f} datagrams/s of {SIZE} bytes, {cpu:.1f} µs CPU each")
    print(f"ratio of rates: {statistics.median(ring[0] / plain[0] for ring, plain in pairs):.2f}")
    print(f"ratio of CPU:   {statistics.median(ring[1] / plain[1] for ring, plain in pairs):.2f}")


if __name__ == "__main__":
    main()
