"""C and C++ declarations behind reactor.pyx, and nothing else."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.deque cimport deque
from libcpp.string cimport string

cdef extern from "netcon/reactor.h" nogil:
    const char *NETCON_REACTOR_CAPSULE
    const uint64_t NETCON_NEVER
    ctypedef void (*netcon_task_fn)(void *context) noexcept nogil
    struct netcon_reactor_api:
        pass

cdef extern from "netcon/ethernet_port.h" nogil:
    const char *NETCON_ETHERNET_END_CAPSULE
    const uint32_t NETCON_ETHERNET_END_ABI
    struct netcon_frame:
        uint8_t *data
        uint32_t length
    struct netcon_ethernet_end:
        uint32_t abi_version
        uint32_t size
        void *self
        void (*attach)(void *self, const netcon_ethernet_end *peer) noexcept nogil

cdef extern from "<atomic>" nogil:
    cdef cppclass atomic_u64 "std::atomic<uint64_t>":
        uint64_t load()
    cdef cppclass atomic_long "std::atomic<long>":
        long load()

cdef extern from "live.hpp" namespace "netcon" nogil:
    cdef cppclass LiveObjects:
        atomic_long reactors, timers, watches, sockets, engine_ends, impairments, memory_ends, taps, captures
    LiveObjects live

cdef extern from "reactor.hpp" nogil:
    cdef cppclass CReactor "netcon_reactor":
        CReactor(cbool manual) except +
        int opened()
        const netcon_reactor_api *api()
        int start()
        void stop()
        uint64_t turn(uint64_t now_us)
        int call(netcon_task_fn fn, void *context)
        atomic_u64 batches, wakeups

cdef extern from "ring.hpp" namespace "netcon" nogil:
    enum RecordKind "netcon::Record::Kind":
        record_datagram "netcon::Record::datagram"
        record_frame "netcon::Record::frame"
    cdef cppclass Record:
        uint32_t length
        int32_t number
        uint16_t port
        RecordKind kind
        uint8_t ttl
        uint8_t ip_length
        uint8_t *ip
        uint8_t *data()
    cdef cppclass Ring:
        Record *reserve(uint32_t length)
        void publish()
        void take_back()
        Record *scan()
        void rewind()
        void release(size_t count)
    cdef cppclass Doorbell:
        int fd()
    const uint32_t payload_max "netcon::Ring::payload_max"

cdef extern from "engine_rings.hpp" namespace "netcon" nogil:
    cdef cppclass Counters:
        atomic_u64 datagrams_in, datagrams_out, frames_up, frames_down, ring_full
        atomic_u64 send_errors, receive_errors, oversize, bad_frames, frames_detached, frames_without_port
        atomic_u64 send_stuck
    cdef cppclass RingPort:
        Ring down
    cdef cppclass EngineRings:
        EngineRings(CReactor &reactor, size_t slots) except +
        void add(RingPort *port)
        void remove(RingPort *port)
        void published_down()
        void received()
        void add_end(int number, CEngineEnd *end)
        void remove_end(int number)
        CEngineEnd *end_of(int number)
        void frame_without_port()
        Ring up
        Doorbell engine_bell
        Counters counters

cdef extern from "fd.hpp" namespace "netcon" nogil:
    cdef cppclass Fd:
        Fd(int fd)

cdef extern from "capture.hpp" namespace "netcon" nogil:
    cdef cppclass CaptureFilter:
        uint32_t ethertype, port
        uint8_t *host
        uint8_t host_length
    cdef cppclass CaptureParameters:
        uint32_t snaplen
        uint64_t frames, bytes, buffer_bytes
        CaptureFilter filter
        string interface, application
    cdef cppclass CaptureCounters:
        uint64_t seen, matched, written, dropped, bytes
        cbool ended
    cdef cppclass CCapture "netcon::Capture":
        CCapture(CReactor &reactor, Fd out, const CaptureParameters &parameters)
        void finish()
        CaptureCounters counters
    cdef cppclass Captures:
        void add(CCapture *capture)
        void remove(CCapture *capture)

cdef extern from "engine_end.hpp" namespace "netcon" nogil:
    cdef cppclass CEngineEnd "netcon::EngineEnd"(RingPort):
        CEngineEnd(EngineRings &rings, int number) except +
        const netcon_ethernet_end *api()
        Captures captures

cdef extern from "udp.hpp" namespace "netcon" nogil:
    cdef cppclass UdpSockets(RingPort):
        UdpSockets(EngineRings &rings) except +
        int open(const uint8_t *ip, size_t ip_length, uint32_t scope, const char *device, uint16_t *port)
        void close(int number)
        void close_all()

cdef extern from "impairment.hpp" namespace "netcon" nogil:
    cdef cppclass ImpairmentParameters:
        uint64_t delay_us, jitter_us
        double loss, duplicate, reorder
        uint64_t rate_bps, queue_bytes
    cdef cppclass ImpairmentCounters:
        uint64_t forwarded, lost, overflowed, duplicated, reordered, detached
    cdef cppclass CImpairment "netcon::Impairment":
        CImpairment(CReactor &reactor, uint64_t seed, const ImpairmentParameters &parameters)
        const netcon_ethernet_end *left()
        const netcon_ethernet_end *right()
        ImpairmentParameters parameters
        ImpairmentCounters counters

cdef extern from "memory_end.hpp" namespace "netcon" nogil:
    cdef cppclass CMemoryEnd "netcon::MemoryEnd":
        CMemoryEnd() except +
        const netcon_ethernet_end *api()
        size_t give(const netcon_frame *frames, size_t count)
        void set_room(size_t room)
        void take(deque[string] &into)
        uint64_t resumed

cdef extern from "tap.hpp" namespace "netcon" nogil:
    cdef cppclass TapCounters:
        uint64_t frames_in, frames_out, refused, detached
    cdef cppclass CTap "netcon::Tap":
        CTap(const netcon_reactor_api &reactor) except +
        int open(const char *name) except +
        int start()
        const netcon_ethernet_end *api()
        TapCounters counters
