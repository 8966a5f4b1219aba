"""What the integration tests share: two services, new ones for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.lab import Lab, running_lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("two")) as lab:
        yield lab
