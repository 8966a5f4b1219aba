"""Makes tests/data/identities.json: identities for simulations, made once because each costs up to a second (vl1 §2.2).

    python tests/make_identities.py 160

Deterministic: the n-th identity comes from a fixed seed. They are worthless outside tests; their secrets are public.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from netcon.dataplane.crypto import generate_identity

TARGET = Path(__file__).parent / "data" / "identities.json"


def make(number: int) -> str:
    address, public, secret = generate_identity(hashlib.sha512(f"netcon test identity {number}".encode()).digest())
    return f"{address:010x}:0:{public.hex()}:{secret.hex()}"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 160
    with ThreadPoolExecutor(2) as pool:
        identities = list(pool.map(make, range(count)))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(identities, indent=0) + "\n")


if __name__ == "__main__":
    main()
