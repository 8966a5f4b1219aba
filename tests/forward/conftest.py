"""A service with two stacks; forwards and proxies run in the test's own nursery, as members of network A."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netcon.forward.sides import NetworkSide
from tests.lwip.service import NETWORK_A, Service, descriptors, eventually


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(two=True)
    before = descriptors()
    yield service
    service.assert_idle()
    eventually(lambda: descriptors() <= before, "descriptors closed")
    service.close()


@pytest.fixture
def side(service: Service) -> NetworkSide:
    return NetworkSide(service.path, NETWORK_A)
