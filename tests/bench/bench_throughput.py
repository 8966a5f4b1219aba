"""One stream from program to program: netcon (two services, encrypted, lwIP at both ends) beside the kernel's loopback, in turns.

python -m tests.bench.bench_throughput [megabytes]
"""

from __future__ import annotations

import sys

from tests.bench.two_services import median, networks, print_buffers

ROUNDS = 3


def main() -> None:
    size = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else 200_000_000
    print(f"one stream of {size // 1_000_000} MB, median of {ROUNDS}")
    with networks() as both:
        for what, title in (("pull", "to the client"), ("push", "to the server")):
            before = both.cpu()
            ours, kernel = both.compare(ROUNDS, what, size)
            used = (both.cpu() - before) / ROUNDS / size * 1e9
            rate, reference = (size * 8 / median(said, "seconds") / 1e6 for said in (ours, kernel))
            print(
                f"{title}: netcon {rate:,.0f} Mbit/s, services {used:.1f} CPU s/GB; kernel {reference:,.0f} Mbit/s; "
                f"ratio {rate / reference:.3f}"
            )
        print_buffers(both, ours[0], kernel[0])


if __name__ == "__main__":
    main()
