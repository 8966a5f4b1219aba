"""Request and reply, and new connections: netcon (two services) beside the kernel's loopback, the same programs, in turns.

python -m tests.bench.bench_requests [exchanges]
"""

from __future__ import annotations

import sys

from tests.bench.two_services import median, networks, print_buffers

ROUNDS = 3


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    with networks() as both:
        ours, kernel = both.compare(ROUNDS, "exchange", count)
        took, reference = median(ours, "median"), median(kernel, "median")
        print(
            f"request and reply of one byte, p50 of {count}: netcon {took:.0f} µs, kernel {reference:.0f} µs; "
            f"ratio {took / reference:.1f}"
        )
        ours, kernel = both.compare(ROUNDS, "connect", count // 3)
        rate, reference = (count // 3 / median(said, "seconds") for said in (ours, kernel))
        print(
            f"connections with one exchange each, one after another: netcon {rate:,.0f}/s, kernel {reference:,.0f}/s; "
            f"ratio {rate / reference:.3f}"
        )
        print_buffers(both, ours[0], kernel[0])


if __name__ == "__main__":
    main()
