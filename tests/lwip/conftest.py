"""A laboratory per test, closed whatever happens."""

from collections.abc import Iterator

import pytest

from tests.lwip.wire import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()
