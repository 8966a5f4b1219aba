"""Every decoder of what comes from outside, with thousands of broken inputs: the documented error and nothing else, what is read is
written the same, and no input takes long or much memory (docs/fuzzing.md). The long run is `make fuzz`."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.mutator import LONGEST, Mutator
from tests.fuzz.targets import TARGETS, Target

RUNS = 600
#: What no decoding of an input of at most 16 KB may take at its peak, bytes: a small multiple of it.
MEMORY = 24 << 20
EACH = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@EACH
def test_good_inputs_first(target: Target) -> None:
    """Some of the inputs that all the others are made from are accepted: otherwise nothing would be tested."""
    assert any(target(data) for data in target.corpus())


@EACH
def test_changed_inputs(target: Target) -> None:
    mutator = Mutator(target.corpus(), random.Random(f"netcon {target.name}"))
    for number in range(RUNS):
        data = mutator.next()
        try:
            target(data)
        except Exception as fault:
            pytest.fail(f"{target.name}, input {number}, {data.hex()}: {fault!r}")


@EACH
def test_any_inputs(target: Target) -> None:
    @seed(1)
    @settings(max_examples=60, deadline=None, database=None)
    @given(st.binary(max_size=200))
    def run(data: bytes) -> None:
        target(data)

    run()


@EACH
def test_memory_is_bounded(target: Target) -> None:
    """The longest inputs: one entry repeated, as lists and nesting are."""
    pieces = [data for data in target.corpus() if data]
    inputs = [(data * (LONGEST // len(data) + 1))[:LONGEST] for data in (*pieces[:3], b"[", b'{"a":', b"(", b"\xff", b"\0", b"=\n")]
    tracemalloc.start()
    try:
        for data in inputs:
            tracemalloc.reset_peak()
            target(data)
            assert tracemalloc.get_traced_memory()[1] < MEMORY, data[:20]
    finally:
        tracemalloc.stop()


def test_the_mutator_repeats_itself() -> None:
    corpus = [b"one entry", b"another", b""]
    first, second = (Mutator(corpus, random.Random(7)) for _ in range(2))
    made = [first.next() for _ in range(500)]
    assert made == [second.next() for _ in range(500)]
    assert len(set(made)) > 400
    assert max(map(len, made)) <= LONGEST
