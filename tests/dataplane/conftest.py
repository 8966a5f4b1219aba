"""For the data plane's tests: no native object and no descriptor may be left, and reactor.h as a native user sees it (ctypes)."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netcon.dataplane import reactor as dataplane

FdCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
TaskCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Pointer = ctypes.c_void_p


class Api(ctypes.Structure):
    """`struct netcon_reactor_api`."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("reactor", Pointer),
        ("now_us", ctypes.CFUNCTYPE(ctypes.c_uint64, Pointer)),
        ("watch", ctypes.CFUNCTYPE(ctypes.c_int, Pointer, ctypes.c_int, ctypes.c_uint32, FdCallback, Pointer)),
        ("rewatch", ctypes.CFUNCTYPE(ctypes.c_int, Pointer, ctypes.c_int, ctypes.c_uint32)),
        ("unwatch", ctypes.CFUNCTYPE(None, Pointer, ctypes.c_int)),
        ("timer_new", ctypes.CFUNCTYPE(Pointer, Pointer, TaskCallback, Pointer)),
        ("timer_set", ctypes.CFUNCTYPE(None, Pointer, ctypes.c_uint64)),
        ("timer_free", ctypes.CFUNCTYPE(None, Pointer)),
        ("defer", ctypes.CFUNCTYPE(None, Pointer, TaskCallback, Pointer)),
        ("post", ctypes.CFUNCTYPE(ctypes.c_int, Pointer, TaskCallback, Pointer)),
        ("call", ctypes.CFUNCTYPE(ctypes.c_int, Pointer, TaskCallback, Pointer)),
    )


_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class NativeUser:
    """What registers with a reactor through its capsule; keeps its callbacks alive."""

    def __init__(self, reactor: dataplane.Reactor) -> None:
        self.capsule = reactor.capsule()
        self.api = Api.from_address(_get_pointer(self.capsule, b"netcon.reactor"))
        self._kept: list[Any] = []

    def _task(self, fn: Callable[[], None]) -> Any:
        callback = TaskCallback(lambda _: fn())
        self._kept.append(callback)
        return callback

    def now(self) -> int:
        return int(self.api.now_us(self.api.reactor))

    def watch(self, fd: int, events: int, fn: Callable[[int, int], None]) -> int:
        callback = FdCallback(lambda _, fd, ready: fn(fd, ready))
        self._kept.append(callback)
        return int(self.api.watch(self.api.reactor, fd, events, callback, None))

    def rewatch(self, fd: int, events: int) -> int:
        return int(self.api.rewatch(self.api.reactor, fd, events))

    def unwatch(self, fd: int) -> None:
        self.api.unwatch(self.api.reactor, fd)

    def timer(self, fn: Callable[[], None]) -> int:
        return int(self.api.timer_new(self.api.reactor, self._task(fn), None))

    def set_timer(self, timer: int, deadline_us: int) -> None:
        self.api.timer_set(timer, deadline_us)

    def free_timer(self, timer: int) -> None:
        self.api.timer_free(timer)

    def defer(self, fn: Callable[[], None]) -> None:
        self.api.defer(self.api.reactor, self._task(fn), None)

    def post(self, fn: Callable[[], None]) -> int:
        return int(self.api.post(self.api.reactor, self._task(fn), None))

    def call(self, fn: Callable[[], None]) -> int:
        return int(self.api.call(self.api.reactor, self._task(fn), None))


class Host:
    """Makes reactors, stops them when the test ends, and waits for what they have for Python."""

    def __init__(self) -> None:
        self._reactors: list[dataplane.Reactor] = []

    def reactor(self, *, manual: bool = True, ring: int = 4096) -> dataplane.Reactor:
        reactor = dataplane.Reactor(manual=manual, ring=ring)
        self._reactors.append(reactor)
        if not manual:
            reactor.start()
        return reactor

    def user(self, reactor: dataplane.Reactor) -> NativeUser:
        return NativeUser(reactor)

    def turn_until(self, reactor: dataplane.Reactor, done: Callable[[], bool]) -> None:
        """Turn a manual reactor at a standing clock until the kernel has brought what the test waits for."""
        deadline = time.monotonic() + 30
        while not done():
            reactor.turn(0)
            assert time.monotonic() < deadline

    def wait_readable(self, reactor: dataplane.Reactor) -> None:
        ready = select.poll()
        ready.register(reactor.fileno(), select.POLLIN)
        assert ready.poll(30_000)

    def is_readable(self, reactor: dataplane.Reactor) -> bool:
        ready = select.poll()
        ready.register(reactor.fileno(), select.POLLIN)
        return bool(ready.poll(0))

    def close(self) -> None:
        for reactor in self._reactors:
            reactor.stop()
        self._reactors.clear()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends with as many native objects and descriptors as it began with."""
    gc.collect()
    objects, descriptors = dataplane.live_objects(), len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert dataplane.live_objects() == objects
    assert len(os.listdir("/proc/self/fd")) == descriptors
