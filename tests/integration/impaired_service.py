"""A service whose stacks stand behind a bad link: 20 ms each way, reordering, and the loss that NETCON_TEST_LOSS says.

NETCON_TEST_LOSS=0.05 python3 -m tests.integration.impaired_service HOME [--ready-fd N]
"""

from __future__ import annotations

import os
import runpy

from netcon.dataplane import reactor as dataplane
from netcon.service import port

_links: dict[int, dataplane.Impairment] = {}  # by the identity of the reactor, which has one network


def connect(reactor: dataplane.Reactor, a: object, b: object) -> None:
    loss = float(os.environ["NETCON_TEST_LOSS"])
    link = _links[id(reactor)] = dataplane.Impairment(reactor, seed=7, delay_us=20_000, loss=loss, reorder=0.02 if loss else 0.0)
    dataplane.connect(reactor, a, link.left())
    dataplane.connect(reactor, link.right(), b)


def disconnect(reactor: dataplane.Reactor, a: object, b: object) -> None:
    link = _links.pop(id(reactor))
    dataplane.disconnect(reactor, a, link.left())
    dataplane.disconnect(reactor, link.right(), b)


if __name__ == "__main__":
    port.connect, port.disconnect = connect, disconnect
    runpy.run_module("netcon.service", run_name="__main__")
