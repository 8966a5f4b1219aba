"""C and C++ declarations behind reactor.pyx, and nothing else."""

from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cbool

cdef extern from "netcon/reactor.h" nogil:
    const char *NETCON_REACTOR_CAPSULE
    const uint64_t NETCON_NEVER
    ctypedef void (*netcon_task_fn)(void *context) noexcept
    struct netcon_reactor_api:
        pass

cdef extern from "reactor.hpp" nogil:
    cdef cppclass atomic_u64 "std::atomic<uint64_t>":
        uint64_t load()

    cdef cppclass CReactor "netcon_reactor":
        CReactor(cbool manual) except +
        int opened()
        const netcon_reactor_api *api()
        int start()
        void stop()
        uint64_t turn(uint64_t now_us)
        uint64_t now()
        int call(netcon_task_fn fn, void *context)
        atomic_u64 batches
        atomic_u64 wakeups

cdef extern from "live.hpp" namespace "netcon" nogil:
    cdef cppclass atomic_long "std::atomic<long>":
        long load()

    cdef cppclass LiveObjects:
        atomic_long reactors, timers, watches, sockets, engine_ends, impairments, memory_ends

    LiveObjects live
