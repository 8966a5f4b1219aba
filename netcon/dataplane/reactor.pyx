"""The data plane as Python sees it: a thin cover over src/*.cpp, described in reactor.pyi.

What belongs to the reactor thread is done there through `CReactor.call`, with the GIL released. The Python side of a ring is
used under the GIL, which makes all Python threads together the ring's one producer or consumer.
"""

import errno
import fcntl
import os
import socket as sockets
import stat

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_GetPointer, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcmp, memcpy
from libcpp.vector cimport vector

cdef enum:
    MAC_BYTES = 6
    ETHERNET_HEADER_BYTES = 14
    ESHUTDOWN = 108


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


cdef const netcon_ethernet_end *ethernet_end(object capsule) except NULL:
    cdef const netcon_ethernet_end *end = <const netcon_ethernet_end *>PyCapsule_GetPointer(capsule, NETCON_ETHERNET_END_CAPSULE)
    if end.abi_version != NETCON_ETHERNET_END_ABI or end.size < sizeof(netcon_ethernet_end):
        raise ImportError(
            f"an Ethernet end of ABI {end.abi_version}, {end.size} bytes; this netcon has ABI {NETCON_ETHERNET_END_ABI}, "
            f"{sizeof(netcon_ethernet_end)} bytes: build all of netcon's native parts again"
        )
    return end


def live_objects():
    return {
        "reactors": live.reactors.load(),
        "timers": live.timers.load(),
        "watches": live.watches.load(),
        "sockets": live.sockets.load(),
        "engine_ends": live.engine_ends.load(),
        "impairments": live.impairments.load(),
        "memory_ends": live.memory_ends.load(),
        "taps": live.taps.load(),
        "captures": live.captures.load(),
    }


# ---- what is done on the reactor thread ----

cdef struct OpenUdp:
    UdpSockets *udp
    const uint8_t *ip
    size_t ip_length
    uint32_t scope
    const char *device
    uint16_t port
    int result

cdef struct CloseUdp:
    UdpSockets *udp
    int number

cdef struct AttachEnds:
    const netcon_ethernet_end *a
    const netcon_ethernet_end *b

cdef struct PortOf:
    EngineRings *rings
    CEngineEnd *end

cdef struct SetImpairment:
    CImpairment *link
    ImpairmentParameters parameters
    ImpairmentCounters counters

cdef struct UseMemoryEnd:
    CMemoryEnd *end
    const netcon_frame *frames
    size_t count
    deque[string] *taken

cdef void open_udp(void *context) noexcept nogil:
    cdef OpenUdp *job = <OpenUdp *>context
    job.result = job.udp.open(job.ip, job.ip_length, job.scope, job.device, &job.port)

cdef void close_udp(void *context) noexcept nogil:
    cdef CloseUdp *job = <CloseUdp *>context
    job.udp.close(job.number)

cdef void close_all_udp(void *context) noexcept nogil:
    (<UdpSockets *>context).close_all()

cdef void attach_ends(void *context) noexcept nogil:
    cdef AttachEnds *job = <AttachEnds *>context
    job.a.attach(job.a.self, job.b)
    job.b.attach(job.b.self, job.a)

cdef void detach_ends(void *context) noexcept nogil:
    cdef AttachEnds *job = <AttachEnds *>context
    job.a.attach(job.a.self, NULL)
    job.b.attach(job.b.self, NULL)

cdef void add_port(void *context) noexcept nogil:
    cdef PortOf *job = <PortOf *>context
    job.rings.add(job.end)

cdef void remove_port(void *context) noexcept nogil:
    cdef PortOf *job = <PortOf *>context
    job.rings.remove(job.end)
    del job.end

cdef void set_impairment(void *context) noexcept nogil:
    cdef SetImpairment *job = <SetImpairment *>context
    job.link.parameters = job.parameters

cdef void count_impairment(void *context) noexcept nogil:
    cdef SetImpairment *job = <SetImpairment *>context
    job.counters = job.link.counters

cdef void free_impairment(void *context) noexcept nogil:
    del (<SetImpairment *>context).link

cdef struct UseTap:
    CTap *tap
    TapCounters counters
    int result

cdef void start_tap(void *context) noexcept nogil:
    (<UseTap *>context).result = (<UseTap *>context).tap.start()

cdef void count_tap(void *context) noexcept nogil:
    (<UseTap *>context).counters = (<UseTap *>context).tap.counters

cdef void free_tap(void *context) noexcept nogil:
    del (<UseTap *>context).tap

cdef void memory_give(void *context) noexcept nogil:
    cdef UseMemoryEnd *job = <UseMemoryEnd *>context
    job.count = job.end.give(job.frames, job.count)

cdef void memory_take(void *context) noexcept nogil:
    cdef UseMemoryEnd *job = <UseMemoryEnd *>context
    job.end.take(job.taken[0])

cdef void memory_room(void *context) noexcept nogil:
    cdef UseMemoryEnd *job = <UseMemoryEnd *>context
    job.end.set_room(job.count)

cdef void memory_resumed(void *context) noexcept nogil:
    cdef UseMemoryEnd *job = <UseMemoryEnd *>context
    job.count = job.end.resumed

cdef void memory_free(void *context) noexcept nogil:
    del (<UseMemoryEnd *>context).end


cdef class Reactor:
    cdef CReactor *native
    cdef EngineRings *rings
    cdef UdpSockets *udp
    cdef readonly bint manual
    cdef bint stopped
    cdef list connected  # pairs of capsules: what is attached is kept alive

    def __cinit__(self, *, bint manual=False, size_t ring=4096):
        if ring == 0 or ring & (ring - 1):
            raise ValueError("ring: the number of slots must be a power of two")
        self.manual = manual
        self.connected = []
        self.native = new CReactor(manual)
        check(self.native.opened())
        self.rings = new EngineRings(self.native[0], ring)
        self.udp = new UdpSockets(self.rings[0])

    def __dealloc__(self):
        with nogil:
            if self.native != NULL:
                self.native.stop()
            del self.udp
            del self.rings
            del self.native

    cdef int on_thread(self, netcon_task_fn fn, void *context) except -1:
        """Run fn on the reactor thread and wait."""
        cdef int result
        with nogil:
            result = self.native.call(fn, context)
        if result == -ESHUTDOWN:
            raise RuntimeError("the reactor was stopped: make a new one")
        return check(result)

    cdef void on_thread_or_here(self, netcon_task_fn fn, void *context) noexcept:
        """For what must happen even when the reactor has stopped: then there is no thread to disturb."""
        with nogil:
            if self.native.call(fn, context) < 0:
                fn(context)

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
        if not self.stopped:
            self.stopped = True
            for a, b in list(self.connected):
                disconnect(self, a, b)
            self.on_thread(close_all_udp, self.udp)
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
        cdef Counters *counters = &self.rings.counters
        return {
            "batches": self.native.batches.load(),
            "wakeups": self.native.wakeups.load(),
            "datagrams_in": counters.datagrams_in.load(),
            "datagrams_out": counters.datagrams_out.load(),
            "frames_up": counters.frames_up.load(),
            "frames_down": counters.frames_down.load(),
            "ring_full": counters.ring_full.load(),
            "send_errors": counters.send_errors.load(),
            "send_stuck": counters.send_stuck.load(),
            "receive_errors": counters.receive_errors.load(),
            "oversize": counters.oversize.load(),
            "bad_frames": counters.bad_frames.load(),
            "frames_detached": counters.frames_detached.load(),
            "frames_without_port": counters.frames_without_port.load(),
        }

    # -- wire --

    def bind_udp(self, str ip, uint16_t port, str device=""):
        cdef OpenUdp job
        family, _, _, _, address = sockets.getaddrinfo(ip, port, type=sockets.SOCK_DGRAM, flags=sockets.AI_NUMERICHOST)[0]
        cdef bytes packed = sockets.inet_pton(family, address[0].partition("%")[0])
        cdef bytes name = os.fsencode(device)
        job.udp = self.udp
        job.device = PyBytes_AS_STRING(name)
        job.ip = <const uint8_t *>PyBytes_AS_STRING(packed)
        job.ip_length = len(packed)
        job.scope = address[3] if family == sockets.AF_INET6 else 0
        job.port = port
        self.on_thread(open_udp, &job)
        return check(job.result), job.port

    def close_udp(self, int socket):
        cdef CloseUdp job
        job.udp = self.udp
        job.number = socket
        self.on_thread_or_here(close_udp, &job)

    # -- rings --

    def fileno(self):
        return self.rings.engine_bell.fd()

    def receive(self, size_t limit=256):
        cdef Ring *up = &self.rings.up
        cdef Record *record
        cdef Record *previous = NULL  # a datagram; most come from where the one before came from
        cdef const char *data
        cdef size_t taken = 0
        cdef list datagrams = [], frames = []
        try:
            while taken < limit:
                record = up.scan()
                if record == NULL:
                    break
                data = <const char *>record.data()
                if record.kind == record_datagram:
                    if (
                        previous == NULL
                        or record.port != previous.port
                        or record.ip_length != previous.ip_length
                        or memcmp(record.ip, previous.ip, record.ip_length) != 0
                    ):
                        remote = (PyBytes_FromStringAndSize(<const char *>record.ip, record.ip_length), record.port)
                    previous = record
                    datagrams.append((record.number, remote, PyBytes_FromStringAndSize(data, record.length)))
                else:
                    frames.append((
                        record.number,
                        PyBytes_FromStringAndSize(data, MAC_BYTES),
                        PyBytes_FromStringAndSize(data + MAC_BYTES, MAC_BYTES),
                        <uint8_t>data[12] << 8 | <uint8_t>data[13],
                        PyBytes_FromStringAndSize(data + ETHERNET_HEADER_BYTES, record.length - ETHERNET_HEADER_BYTES),
                    ))
                taken += 1
        except MemoryError:
            up.rewind()
            raise
        up.release(taken)
        self.rings.received()
        return datagrams, frames

    def send_datagrams(self, batch):
        cdef Ring *down = &self.udp.down
        cdef Record *record
        cdef Py_ssize_t length, ip_length
        cdef size_t taken = 0
        cdef bytes ip, data
        try:
            for socket, remote, data, ttl in batch:
                ip, port = remote
                length = len(data)
                ip_length = len(ip)
                if ip_length != 4 and ip_length != 16:
                    raise ValueError(f"an IP address has 4 or 16 bytes, not {ip_length}")
                if length > payload_max:
                    raise ValueError(f"a datagram of {length} bytes; the limit is {payload_max}")
                record = down.reserve(<uint32_t>length)
                if record == NULL:
                    break
                record.kind = record_datagram
                record.number = socket
                record.port = port
                record.ttl = ttl
                record.ip_length = <uint8_t>ip_length
                memcpy(record.ip, PyBytes_AS_STRING(ip), ip_length)
                memcpy(record.data(), PyBytes_AS_STRING(data), length)
                taken += 1
        except BaseException:
            down.take_back()
            raise
        down.publish()
        if taken:
            self.rings.published_down()
        return taken

    def send_frames(self, batch):
        cdef Record *record
        cdef CEngineEnd *end
        cdef Ring *down
        cdef uint8_t *into
        cdef Py_ssize_t length
        cdef size_t taken = 0
        cdef bytes destination, source, payload
        cdef int number
        cdef uint16_t ethertype
        # Every frame is published by itself, because each end has its own ring; those before a bad one are sent.
        try:
            for number, destination, source, ethertype, payload in batch:
                length = len(payload) + ETHERNET_HEADER_BYTES
                if len(destination) != MAC_BYTES or len(source) != MAC_BYTES:
                    raise ValueError("a MAC address has 6 bytes")
                if length > payload_max:
                    raise ValueError(f"a frame of {length} bytes; the limit is {payload_max}")
                end = self.rings.end_of(number)
                if end == NULL:
                    self.rings.frame_without_port()
                    taken += 1
                    continue
                down = &end.down
                record = down.reserve(<uint32_t>length)
                if record == NULL:
                    break
                record.kind = record_frame
                record.number = number
                into = record.data()
                memcpy(into, PyBytes_AS_STRING(destination), MAC_BYTES)
                memcpy(into + MAC_BYTES, PyBytes_AS_STRING(source), MAC_BYTES)
                into[12] = ethertype >> 8
                into[13] = ethertype & 0xFF
                memcpy(into + ETHERNET_HEADER_BYTES, PyBytes_AS_STRING(payload), len(payload))
                down.publish()
                taken += 1
        finally:
            self.rings.published_down()
        return taken


@cython.no_gc_clear
cdef class EngineEnd:
    cdef Reactor reactor
    cdef CEngineEnd *native
    cdef readonly int number

    def __cinit__(self, Reactor reactor not None, int number):
        cdef PortOf job
        if reactor.rings.end_of(number) != NULL:
            raise ValueError(f"the reactor has an engine end {number} already")
        self.reactor = reactor
        self.number = number
        self.native = new CEngineEnd(reactor.rings[0], number)
        job.rings = reactor.rings
        job.end = self.native
        reactor.on_thread_or_here(add_port, &job)
        reactor.rings.add_end(number, self.native)

    def __dealloc__(self):
        cdef PortOf job
        if self.native == NULL:
            return
        self.reactor.rings.remove_end(self.number)
        job.rings = self.reactor.rings
        job.end = self.native
        self.reactor.on_thread_or_here(remove_port, &job)

    def capsule(self):
        return owned_capsule(self.native.api(), NETCON_ETHERNET_END_CAPSULE, self)


cdef struct UseCapture:
    CReactor *reactor
    CEngineEnd *end
    CCapture *capture
    int fd
    CaptureParameters parameters
    CaptureCounters counters

cdef void start_capture(void *context) noexcept nogil:
    cdef UseCapture *job = <UseCapture *>context
    job.capture = new CCapture(job.reactor[0], Fd(job.fd), job.parameters)
    job.end.captures.add(job.capture)

cdef void finish_capture(void *context) noexcept nogil:
    cdef UseCapture *job = <UseCapture *>context
    job.end.captures.remove(job.capture)
    job.capture.finish()

cdef void count_capture(void *context) noexcept nogil:
    cdef UseCapture *job = <UseCapture *>context
    job.counters = job.capture.counters

cdef void free_capture(void *context) noexcept nogil:
    cdef UseCapture *job = <UseCapture *>context
    if job.end != NULL:
        job.end.captures.remove(job.capture)
    del job.capture


@cython.no_gc_clear
cdef class Capture:
    cdef Reactor reactor
    cdef EngineEnd end
    cdef CCapture *native

    def __cinit__(
        self, EngineEnd end not None, int fd, *, uint32_t snaplen=262144, uint64_t frames=0, uint64_t bytes=0,
        uint64_t buffer_bytes=1 << 20, uint32_t ethertype=0, host=b"", uint32_t port=0, str interface="", str application="netcon",
    ):
        cdef UseCapture job
        cdef const char *address
        if len(host) not in (0, 4, 16):
            raise ValueError(f"host: an IP address has 4 or 16 bytes, not {len(host)}")
        if not (stat.S_ISFIFO(os.fstat(fd).st_mode) or stat.S_ISSOCK(os.fstat(fd).st_mode)):
            raise ValueError("a capture is written to a pipe or a socket, so that it never waits: copy from there to a file")
        job.parameters.snaplen = snaplen
        job.parameters.frames = frames
        job.parameters.bytes = bytes
        job.parameters.buffer_bytes = buffer_bytes
        job.parameters.filter.ethertype = ethertype
        job.parameters.filter.port = port
        job.parameters.filter.host_length = <uint8_t>len(host)
        address = host
        memcpy(job.parameters.filter.host, address, len(host))
        job.parameters.interface = interface.encode()
        job.parameters.application = application.encode()
        self.end = end
        self.reactor = end.reactor
        job.reactor = end.reactor.native
        job.end = end.native
        job.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        try:
            os.set_blocking(job.fd, False)
            self.reactor.on_thread(start_capture, &job)
        except RuntimeError:
            os.close(job.fd)
            raise
        self.native = job.capture

    def __dealloc__(self):
        self.free()

    cdef void free(self) noexcept:
        cdef UseCapture job
        if self.native == NULL:
            return
        job.end = self.end.native if self.end is not None else NULL
        job.capture = self.native
        self.native = NULL
        self.end = None
        self.reactor.on_thread_or_here(free_capture, &job)

    def finish(self):
        cdef UseCapture job
        if self.end is not None and self.native != NULL:
            job.end = self.end.native
            job.capture = self.native
            self.reactor.on_thread_or_here(finish_capture, &job)
            self.end = None

    def close(self):
        self.free()

    def stats(self):
        cdef UseCapture job
        if self.native == NULL:
            raise ValueError("the capture was closed")
        job.capture = self.native
        self.reactor.on_thread_or_here(count_capture, &job)
        return {
            "seen": job.counters.seen,
            "matched": job.counters.matched,
            "written": job.counters.written,
            "dropped": job.counters.dropped,
            "bytes": job.counters.bytes,
            "ended": job.counters.ended,
        }


cdef double probability(str name, value) except -1:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value} is not a probability")
    return value


cdef uint64_t microseconds(str name, value) except? 0:
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{name}: {value} is not in 0 .. 2^32 microseconds")
    return <uint64_t>int(value)


@cython.no_gc_clear
cdef class Impairment:
    cdef Reactor reactor
    cdef CImpairment *native
    cdef dict parameters

    def __cinit__(
        self, Reactor reactor not None, *, uint64_t seed, delay_us=0, jitter_us=0, loss=0.0, duplicate=0.0, reorder=0.0, rate_bps=0,
        queue_bytes=1 << 20,
    ):
        self.reactor = reactor
        self.parameters = {
            "delay_us": delay_us,
            "jitter_us": jitter_us,
            "loss": loss,
            "duplicate": duplicate,
            "reorder": reorder,
            "rate_bps": rate_bps,
            "queue_bytes": queue_bytes,
        }
        # Its timers are made here, before anything is attached: nothing of it is on the reactor thread yet but the timer heap.
        cdef ImpairmentParameters native = self.checked(self.parameters)
        self.native = make_impairment(reactor, seed, native)

    def __dealloc__(self):
        cdef SetImpairment job
        if self.native == NULL:
            return
        job.link = self.native
        self.reactor.on_thread_or_here(free_impairment, &job)

    cdef ImpairmentParameters checked(self, dict wanted):
        cdef ImpairmentParameters native
        native.delay_us = microseconds("delay_us", wanted["delay_us"])
        native.jitter_us = microseconds("jitter_us", wanted["jitter_us"])
        native.loss = probability("loss", wanted["loss"])
        native.duplicate = probability("duplicate", wanted["duplicate"])
        native.reorder = probability("reorder", wanted["reorder"])
        native.rate_bps = int(wanted["rate_bps"])
        native.queue_bytes = int(wanted["queue_bytes"])
        return native

    def left(self):
        return owned_capsule(self.native.left(), NETCON_ETHERNET_END_CAPSULE, self)

    def right(self):
        return owned_capsule(self.native.right(), NETCON_ETHERNET_END_CAPSULE, self)

    def set(self, **changes):
        cdef SetImpairment job
        unknown = changes.keys() - self.parameters.keys()
        if unknown:
            raise TypeError(f"unknown parameters: {', '.join(sorted(unknown))}; there are {', '.join(self.parameters)}")
        wanted = self.parameters | changes
        job.link = self.native
        job.parameters = self.checked(wanted)
        self.reactor.on_thread(set_impairment, &job)
        self.parameters = wanted

    def stats(self):
        cdef SetImpairment job
        job.link = self.native
        self.reactor.on_thread_or_here(count_impairment, &job)
        return {
            "forwarded": job.counters.forwarded,
            "lost": job.counters.lost,
            "overflowed": job.counters.overflowed,
            "duplicated": job.counters.duplicated,
            "reordered": job.counters.reordered,
            "detached": job.counters.detached,
        }


cdef struct MakeImpairment:
    CReactor *reactor
    uint64_t seed
    ImpairmentParameters parameters
    CImpairment *link

cdef void make_impairment_there(void *context) noexcept nogil:
    cdef MakeImpairment *job = <MakeImpairment *>context
    job.link = new CImpairment(job.reactor[0], job.seed, job.parameters)

cdef CImpairment *make_impairment(Reactor reactor, uint64_t seed, ImpairmentParameters parameters) except NULL:
    cdef MakeImpairment job
    job.reactor = reactor.native
    job.seed = seed
    job.parameters = parameters
    reactor.on_thread(make_impairment_there, &job)
    return job.link


@cython.no_gc_clear
cdef class MemoryEnd:
    cdef Reactor reactor
    cdef CMemoryEnd *native

    def __cinit__(self, Reactor reactor not None):
        self.reactor = reactor
        self.native = new CMemoryEnd()

    def __dealloc__(self):
        cdef UseMemoryEnd job
        if self.native == NULL:
            return
        job.end = self.native
        self.reactor.on_thread_or_here(memory_free, &job)

    def capsule(self):
        return owned_capsule(self.native.api(), NETCON_ETHERNET_END_CAPSULE, self)

    def give(self, list frames):
        cdef UseMemoryEnd job
        cdef vector[string] copies  # whoever takes a frame may write into it
        cdef vector[netcon_frame] views
        cdef netcon_frame view
        cdef size_t i
        for frame in frames:
            copies.push_back(<bytes?>frame)
        for i in range(copies.size()):
            view.data = <uint8_t *>copies[i].data()
            view.length = <uint32_t>copies[i].size()
            views.push_back(view)
        job.end = self.native
        job.frames = views.data()
        job.count = views.size()
        self.reactor.on_thread(memory_give, &job)
        return job.count

    def take(self):
        cdef UseMemoryEnd job
        cdef deque[string] taken
        job.end = self.native
        job.taken = &taken
        self.reactor.on_thread(memory_take, &job)
        return [<bytes>frame for frame in taken]

    def set_room(self, size_t room):
        cdef UseMemoryEnd job
        job.end = self.native
        job.count = room
        self.reactor.on_thread(memory_room, &job)

    @property
    def resumed(self):
        cdef UseMemoryEnd job
        job.end = self.native
        self.reactor.on_thread_or_here(memory_resumed, &job)
        return job.count


@cython.no_gc_clear
cdef class Tap:
    cdef Reactor reactor
    cdef CTap *native
    cdef readonly str name

    def __cinit__(self, Reactor reactor not None, str name not None):
        cdef UseTap job
        cdef bytes encoded = name.encode()
        self.reactor = reactor
        self.name = name
        self.native = new CTap(reactor.native.api()[0])
        check(self.native.open(encoded))
        job.tap = self.native
        reactor.on_thread(start_tap, &job)
        check(job.result)

    def __dealloc__(self):
        self.free()

    cdef void free(self) noexcept:
        cdef UseTap job
        if self.native != NULL:
            job.tap = self.native
            self.native = NULL
            self.reactor.on_thread_or_here(free_tap, &job)

    def close(self):
        if self.native != NULL and any(<size_t>self.native.api() in ends_of(pair) for pair in self.reactor.connected):
            raise ValueError("a TAP device is closed when it is not connected: disconnect it first")
        self.free()

    def capsule(self):
        if self.native == NULL:
            raise ValueError("the TAP device was closed")
        return owned_capsule(self.native.api(), NETCON_ETHERNET_END_CAPSULE, self)

    def stats(self):
        cdef UseTap job
        if self.native == NULL:
            raise ValueError("the TAP device was closed")
        job.tap = self.native
        self.reactor.on_thread_or_here(count_tap, &job)
        return {
            "frames_in": job.counters.frames_in,
            "frames_out": job.counters.frames_out,
            "refused": job.counters.refused,
            "detached": job.counters.detached,
        }


cdef set ends_of(tuple pair):
    return {<size_t>ethernet_end(pair[0]), <size_t>ethernet_end(pair[1])}


def connect(Reactor reactor not None, a, b):
    cdef AttachEnds job
    job.a = ethernet_end(a)
    job.b = ethernet_end(b)
    if job.a == job.b:
        raise ValueError("an Ethernet end cannot be connected to itself")
    if any(ends_of(pair) & ends_of((a, b)) for pair in reactor.connected):
        raise ValueError("an Ethernet end is connected already: disconnect it first")
    reactor.on_thread(attach_ends, &job)
    reactor.connected.append((a, b))


def disconnect(Reactor reactor not None, a, b):
    cdef AttachEnds job
    job.a = ethernet_end(a)
    job.b = ethernet_end(b)
    for pair in reactor.connected:
        if ends_of(pair) == ends_of((a, b)):
            break
    else:
        raise ValueError("these Ethernet ends are not connected to each other")
    reactor.on_thread(detach_ends, &job)
    reactor.connected.remove(pair)
