# distutils: language = c++
"""The data plane as Python sees it: a thin cover over src/*.cpp, described in reactor.pyi.

What belongs to the reactor thread is done there through `CReactor.call`, with the GIL released. The Python side of a ring is
used under the GIL, which makes all Python threads together the ring's one producer or consumer.
"""

import errno
import os

from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef int check(int result) except -1:
    """The one translator of native errors: a negative errno becomes an OSError."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


cdef void release_owner(object capsule) noexcept:
    Py_DECREF(<object>PyCapsule_GetContext(capsule))


cdef object owned_capsule(const void *pointer, const char *name, object owner):
    """A capsule that keeps `owner` alive."""
    capsule = PyCapsule_New(<void *>pointer, name, release_owner)
    PyCapsule_SetContext(capsule, <void *>owner)
    Py_INCREF(owner)
    return capsule


def live_objects():
    return {
        "reactors": live.reactors.load(),
        "timers": live.timers.load(),
        "watches": live.watches.load(),
        "sockets": live.sockets.load(),
        "engine_ends": live.engine_ends.load(),
        "impairments": live.impairments.load(),
        "memory_ends": live.memory_ends.load(),
    }


cdef class Reactor:
    cdef CReactor *native
    cdef readonly bint manual

    def __cinit__(self, *, bint manual=False, int ring=4096):
        self.manual = manual
        self.native = new CReactor(manual)
        check(self.native.opened())

    def __dealloc__(self):
        with nogil:
            del self.native

    def capsule(self):
        return owned_capsule(self.native.api(), NETCON_REACTOR_CAPSULE, self)

    def start(self):
        cdef int result = self.native.start()
        if result == -errno.EINVAL:
            raise RuntimeError("a manual reactor has no thread: call turn(now_us)")
        if result == -errno.EALREADY:
            raise RuntimeError("the reactor's thread runs already")
        if result == -errno.ESHUTDOWN:
            raise RuntimeError("the reactor was stopped: make a new one")
        check(result)

    def stop(self):
        with nogil:
            self.native.stop()

    def turn(self, uint64_t now_us):
        cdef uint64_t deadline
        if not self.manual:
            raise RuntimeError("only a manual reactor is turned: this one has a thread")
        with nogil:
            deadline = self.native.turn(now_us)
        return None if deadline == NETCON_NEVER else deadline

    def stats(self):
        return {
            "batches": self.native.batches.load(),
            "wakeups": self.native.wakeups.load(),
        }
