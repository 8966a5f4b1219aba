"""Bytes: send and recv and their flags, the message calls, sizes, blocking and time-outs."""

import array
import ctypes
import errno
import fcntl
import hashlib
import os
import select
import socket
import struct
import termios
import threading
import time

from tests.differential.harness import (
    LIBC,
    World,
    case,
    differs,
    errno_name,
    in_thread,
    interrupted,
    no_sigpipe,
    outcome,
    polled,
    raw_call,
    receive_all,
    reset,
    socket_error,
    until_queued,
    value,
    wait,
)


@case
def recv_would_block(world: World):
    client, _ = world.pair()
    client.setblocking(False)
    return outcome(client.recv, 1)


@case
def recv_dontwait(world: World):
    client, _ = world.pair()
    return outcome(client.recv, 1, socket.MSG_DONTWAIT)


@case
def recv_of_zero_bytes(world: World):
    client, server = world.pair()
    server.sendall(b"x")
    wait(client, select.POLLIN)
    return [value(lambda: client.recv(0).decode()), client.recv(1).decode()]


@case
def send_of_zero_bytes(world: World):
    client, _ = world.pair()
    return client.send(b"")


@case
def peek_leaves_the_bytes(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    return [client.recv(2, socket.MSG_PEEK).decode(), client.recv(3, socket.MSG_WAITALL).decode()]


@case
def waitall_waits_for_all(world: World):
    client, server = world.pair()
    thread = threading.Thread(target=lambda: [server.sendall(b"abc"), server.sendall(b"def")])
    thread.start()
    got = client.recv(6, socket.MSG_WAITALL)
    thread.join()
    return got.decode()


@case
def waitall_ends_at_end_of_stream(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    server.close()
    return client.recv(10, socket.MSG_WAITALL).decode()


@case
def trunc_discards(world: World):
    client, server = world.pair()
    server.sendall(b"abcdef")
    wait(client, select.POLLIN)
    buffer = ctypes.create_string_buffer(b"......", 6)
    got = LIBC.recv(client.fileno(), buffer, 3, socket.MSG_TRUNC)
    return [got, buffer.raw.decode(), client.recv(3).decode()]


@case
def errqueue_is_empty(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    return [outcome(client.recv, 3, 0x2000), client.recv(3).decode()]


@case
def sendto_ignores_the_address(world: World):
    client, server = world.pair()
    client.sendto(b"abc", (world.address, 1))
    return server.recv(3).decode()


@case
def sendmsg_gathers(world: World):
    client, server = world.pair()
    count = client.sendmsg([b"ab", b"cd", b"e"])
    return [count, server.recv(5, socket.MSG_WAITALL).decode()]


@case
def sendmsg_with_an_address(world: World):
    client, server = world.pair()
    count = client.sendmsg([b"abc"], [], 0, (world.address, 1))
    return [count, server.recv(3).decode()]


@case
def recvmsg_has_no_address(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    data, ancillary, flags, address = client.recvmsg(16, 64)
    return [data.decode(), ancillary, flags & ~socket.MSG_CMSG_CLOEXEC, address]


@case
def recvfrom_has_no_address(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    data = ctypes.create_string_buffer(16)
    address = ctypes.create_string_buffer(b"\xee" * 64, 64)
    length = ctypes.c_uint32(64)
    got = LIBC.recvfrom(client.fileno(), data, 16, 0, address, ctypes.byref(length))
    return [got, data.raw[:3].decode(), length.value, address.raw[:2].hex()]


@case
def recvfrom_from_python(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    data, address = client.recvfrom(16)
    return [data.decode(), address]


@case
def recv_into_scatters(world: World):
    client, server = world.pair()
    server.sendall(b"abcdef")
    wait(client, select.POLLIN)
    first, second = bytearray(2), bytearray(4)
    count = client.recvmsg_into([first, second])[0]
    return [count, first.decode(), second.decode()]


@case
def read_and_write_work_on_the_descriptor(world: World):
    client, server = world.pair()
    os.write(client.fileno(), b"abc")
    return os.read(server.fileno(), 3).decode()


@case
def writev_and_readv(world: World):
    client, server = world.pair()
    os.writev(client.fileno(), [b"ab", b"cd"])
    wait(server, select.POLLIN)
    parts = [bytearray(2), bytearray(2)]
    os.readv(server.fileno(), parts)
    return [p.decode() for p in parts]


@case
def sendfile_delivers_a_file(world: World):
    client, server = world.pair()
    fd = os.memfd_create("file")
    os.write(fd, b"z" * 300_000)
    digest: list[str] = []
    thread = threading.Thread(target=lambda: digest.append(hashlib.sha256(receive_all(server)).hexdigest()))
    thread.start()
    offset = 0
    while offset < 300_000:
        offset += os.sendfile(client.fileno(), fd, offset, 300_000 - offset)
    client.close()
    thread.join()
    os.close(fd)
    return digest


@case
def splice_from_a_pipe(world: World):
    client, server = world.pair()
    reader, writer = os.pipe()
    os.write(writer, b"spliced")
    moved = os.splice(reader, client.fileno(), 7)
    os.close(reader)
    os.close(writer)
    return [moved, server.recv(7, socket.MSG_WAITALL).decode()]


@case
def a_megabyte_each_way_at_once(world: World):
    client, server = world.pair()
    payload = bytes(range(256)) * 4096
    threads = [threading.Thread(target=lambda s=s: [s.sendall(payload), s.shutdown(socket.SHUT_WR)]) for s in (client, server)]
    for thread in threads:
        thread.start()
    results: list[bool] = []
    readers = [threading.Thread(target=lambda s=s: results.append(receive_all(s) == payload)) for s in (client, server)]
    for thread in readers:
        thread.start()
    for thread in threads + readers:
        thread.join()
    return results


@case
def many_small_writes_arrive_in_order(world: World):
    client, server = world.pair()
    text = "".join(f"{n:04d}" for n in range(2500))
    thread = threading.Thread(
        target=lambda: [[client.sendall(text[i : i + 4].encode()) for i in range(0, len(text), 4)], client.close()]
    )
    thread.start()
    got = receive_all(server).decode()
    thread.join()
    return got == text


@case
def nonblocking_send_fills_up(world: World):
    client, _server = world.pair()
    client.setblocking(False)
    total = 0
    block = bytes(65536)
    result = "OK"
    while result == "OK":
        try:
            total += client.send(block)
        except OSError as error:
            result = errno_name(error.errno or 0)
    return [result, total > 100_000]


@case
def a_full_socket_becomes_writable_when_read(world: World):
    client, server = world.pair()
    client.setblocking(False)
    try:
        while True:
            client.send(bytes(65536))
    except BlockingIOError:
        pass
    poller = select.poll()
    poller.register(client, select.POLLOUT)
    before = bool(poller.poll(0))
    stop = threading.Event()

    def drain() -> None:
        server.settimeout(0.2)
        while not stop.is_set():
            try:
                server.recv(1 << 20)
            except TimeoutError:
                pass

    thread = threading.Thread(target=drain)
    thread.start()
    after = "OUT" in wait(client, select.POLLOUT)
    stop.set()
    thread.join()
    return [before, after]


@case
def recv_timeout_by_so_rcvtimeo(world: World):
    client, _ = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 20_000))
    return outcome(client.recv, 1)


@case
def accept_timeout_by_so_rcvtimeo(world: World):
    listener = world.listener()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 20_000))
    return outcome(listener.accept)


@case
def fionread_counts(world: World):
    client, server = world.pair()
    server.sendall(b"abcde")
    wait(client, select.POLLIN)
    # All five bytes travel in one segment.
    count = array.array("i", [0])
    fcntl.ioctl(client.fileno(), termios.FIONREAD, count)
    return count[0]


@case
def siocoutq_of_an_idle_connection(world: World):
    client, server = world.pair()
    client.sendall(b"abc")
    server.recv(3, socket.MSG_WAITALL)
    server.sendall(b"ack")
    client.recv(3, socket.MSG_WAITALL)
    count = array.array("i", [-1])
    fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, count)
    return count[0]


@case
def fionbio_makes_nonblocking(world: World):
    client, _ = world.pair()
    fcntl.ioctl(client.fileno(), 0x5421, struct.pack("i", 1))
    return outcome(client.recv, 1)


@case
def send_on_a_fresh_socket_with_nosignal(world: World):
    return outcome(world.stream().send, b"", socket.MSG_NOSIGNAL) in ("EPIPE", "OK")


@case
def send_nosignal_after_reset(world: World):
    from tests.differential.harness import reset

    client, server = world.pair()
    reset(server)
    wait(client, select.POLLIN)
    first = outcome(client.recv, 1)
    return [first, outcome(client.send, b"x", socket.MSG_NOSIGNAL)]


@case
def sigpipe_is_raised(world: World):
    import signal

    client, server = world.pair()
    server.close()
    wait(client, select.POLLIN)
    seen: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda *_: seen.append(1))
    client.shutdown(socket.SHUT_WR)
    result = outcome(client.send, b"x")
    signal.signal(signal.SIGPIPE, before)
    return [result, bool(seen)]


def receive_a_message(sock: socket.socket) -> tuple[int, int, bytes]:
    """(what recvmmsg for one message said, that message's length, its bytes)."""

    class Iovec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    class Header(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_void_p),
            ("name_length", ctypes.c_uint32),
            ("vector", ctypes.POINTER(Iovec)),
            ("vector_length", ctypes.c_size_t),
            ("control", ctypes.c_void_p),
            ("control_length", ctypes.c_size_t),
            ("flags", ctypes.c_int),
        )

    class Message(ctypes.Structure):
        _fields_ = (("header", Header), ("count", ctypes.c_uint32))

    buffer = ctypes.create_string_buffer(8)
    vector = Iovec(ctypes.addressof(buffer), 8)
    message = Message(Header(None, 0, ctypes.pointer(vector), 1, None, 0, 0), 0)
    got = LIBC.recvmmsg(sock.fileno(), ctypes.byref(message), 1, 0, None)
    return got, message.count, buffer.raw[:3]


@case
def recvmmsg_on_a_stream(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    got, count, data = receive_a_message(client)
    return [got, count, data.decode()]


@case
def recvmmsg_tells_a_reset_before_what_came_before_it(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    reset(server)
    wait(client, select.POLLERR)
    ctypes.set_errno(0)
    first = receive_a_message(client)[0]
    return [first, errno_name(ctypes.get_errno()), client.recv(8).decode(), value(client.recv, 8) == b""]


@case
def recv_waitall_ended_by_a_reset(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    reset(server)
    wait(client, select.POLLERR)
    first = client.recv(100, socket.MSG_WAITALL).decode()
    return [first, polled(client), value(client.recv, 8)]


@case
def recvmsg_waitall_into_parts_ended_by_a_reset(world: World):
    client, server = world.pair()
    server.sendall(b"abcdef")
    wait(client, select.POLLIN)
    reset(server)
    wait(client, select.POLLERR)
    parts = [bytearray(4), bytearray(4), bytearray(4)]
    count = client.recvmsg_into(parts, 0, socket.MSG_WAITALL)[0]
    return [count, b"".join(parts)[:6].decode(), socket_error(client)]


@case
def recv_waitall_waits_for_later_pieces(world: World):
    client, server = world.pair()
    thread, results = in_thread(lambda: client.recv(9, socket.MSG_WAITALL).decode())
    for piece in (b"abc", b"def", b"ghi"):
        server.sendall(piece)
        time.sleep(0.01)
    thread.join()
    return results


@case
def recv_waitall_with_a_time_limit(world: World):
    client, server = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    nothing = raw_call(LIBC.recv, client.fileno(), ctypes.create_string_buffer(8), 8, socket.MSG_WAITALL)
    server.sendall(b"abc")
    return [nothing, client.recv(8, socket.MSG_WAITALL).decode()]


@case
def recv_waitall_without_waiting(world: World):
    client, server = world.pair()
    nothing = value(client.recv, 8, socket.MSG_WAITALL | socket.MSG_DONTWAIT)
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    some = client.recv(8, socket.MSG_WAITALL | socket.MSG_DONTWAIT).decode()
    server.sendall(b"abc")
    server.close()
    return [nothing, some, client.recv(8, socket.MSG_WAITALL).decode(), client.recv(8, socket.MSG_WAITALL).decode()]


@case
def recv_waitall_that_a_signal_interrupts(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    wait(client, select.POLLIN)
    with interrupted():
        return client.recv(8, socket.MSG_WAITALL).decode()


@case
def send_more_is_delivered_in_the_end(world: World):
    client, server = world.pair()
    client.send(b"ab", socket.MSG_MORE)
    client.send(b"cd")
    return server.recv(4, socket.MSG_WAITALL).decode()


@case
def fastopen_flag_on_a_connected_socket(world: World):
    client, _ = world.pair()
    with no_sigpipe():
        return outcome(client.sendto, b"x", 0x20000000, (world.address, 1)) in ("EISCONN", "EOPNOTSUPP")


@case
def bad_descriptor(world: World):
    sock = world.stream()
    fd = sock.fileno()
    sock.close()
    results = []
    for call in ("listen", "shutdown"):
        ctypes.set_errno(0)
        getattr(LIBC, call)(fd, 0)
        results.append(errno_name(ctypes.get_errno()))
    ctypes.set_errno(0)
    LIBC.send(fd, b"x", 1, 0)
    results.append(errno_name(ctypes.get_errno()))
    return results


@case
def not_a_socket(world: World):
    reader, writer = os.pipe()
    results = []
    for call in ("listen", "shutdown"):
        ctypes.set_errno(0)
        getattr(LIBC, call)(reader, 0)
        results.append(errno_name(ctypes.get_errno()))
    os.close(reader)
    os.close(writer)
    return results


@case
def bad_pointers_are_efault(world: World):
    client, _ = world.pair()
    results = []
    ctypes.set_errno(0)
    LIBC.getsockname(client.fileno(), ctypes.c_void_p(1), ctypes.byref(ctypes.c_uint32(16)))
    results.append(errno_name(ctypes.get_errno()))
    ctypes.set_errno(0)
    LIBC.connect(world.stream().fileno(), ctypes.c_void_p(1), 16)
    results.append(errno_name(ctypes.get_errno()))
    return results or errno.EFAULT


@differs("urgent data is delivered in line: AF_UNIX has no urgent pointer that TCP could carry", "abcd")
def urgent_data(world: World):
    client, server = world.pair()
    client.send(b"ab")
    client.send(b"c", socket.MSG_OOB)
    client.send(b"d")
    client.close()
    return receive_all(server).decode()


@case
def urgent_data_inline(world: World):
    client, server = world.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.send(b"ab")
    client.send(b"c", socket.MSG_OOB)
    client.send(b"d")
    client.close()
    return receive_all(server).decode()


@case
def recv_urgent_data_without_any(world: World):
    client, _ = world.pair()
    client.setblocking(False)
    return outcome(client.recv, 1, socket.MSG_OOB)


@case
def descriptors_in_control_data_are_ignored(world: World):
    client, server = world.pair()
    count = client.sendmsg([b"abc"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    data, ancillary, _, _ = server.recvmsg(16, 64)
    return [count, data.decode(), ancillary]


@case
def low_water_mark_holds_recv_back(world: World):
    client, server = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5)
    # Nothing may be there yet: the kernel, having copied 3 bytes, would wait for 5 more.
    thread, results = in_thread(lambda: client.recv(10).decode())
    server.sendall(b"abc")
    server.sendall(b"de")
    thread.join()
    return results


@case
def low_water_mark_does_not_hold_the_end_back(world: World):
    client, server = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5)
    server.sendall(b"abc")
    server.close()
    return [client.recv(10).decode(), client.recv(10).decode()]


@case
def peek_waits_for_data(world: World):
    client, server = world.pair()
    thread, results = in_thread(lambda: client.recv(3, socket.MSG_PEEK).decode())
    server.sendall(b"abc")
    thread.join()
    return [*results, client.recv(3).decode()]


@case
def peek_and_trunc_count(world: World):
    client, server = world.pair()
    server.sendall(b"abcdef")
    until_queued(client, 6)
    return [LIBC.recv(client.fileno(), None, 4, socket.MSG_PEEK | socket.MSG_TRUNC), client.recv(6).decode()]


@case
def positions_mean_nothing(world: World):
    fd = world.pair()[0].fileno()
    return [
        outcome(os.lseek, fd, 0, os.SEEK_SET),
        outcome(os.pread, fd, 1, 0),
        outcome(os.pwrite, fd, b"x", 0),
        outcome(os.ftruncate, fd, 0),
        outcome(os.fsync, fd),
    ]


@case
def splice_to_a_pipe(world: World):
    client, server = world.pair()
    reader, writer = os.pipe()
    server.sendall(b"spliced")
    until_queued(client, 7)
    return [os.splice(client.fileno(), writer, 7), os.read(reader, 7).decode()]


@case
def send_from_a_bad_pointer(world: World):
    client, _ = world.pair()
    return raw_call(LIBC.send, client.fileno(), ctypes.c_void_p(1), ctypes.c_size_t(10), 0)


@case
def recv_to_a_bad_pointer_keeps_the_data(world: World):
    client, server = world.pair()
    server.sendall(b"abc")
    until_queued(client, 3)
    return [raw_call(LIBC.recv, client.fileno(), ctypes.c_void_p(1), ctypes.c_size_t(3), 0), client.recv(3).decode()]


@case
def too_many_parts(world: World):
    client, _ = world.pair()
    return [outcome(client.sendmsg, [b"x"] * 1025), value(lambda: client.sendmsg([b"x"] * 1024))]


@case
def send_timeout_by_so_sndtimeo(world: World):
    client, _server = world.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100_000))
    result = "OK"
    while result == "OK":
        result = outcome(client.send, bytes(65536))
    return result


@case
def fionread_of_an_empty_stream(world: World):
    client, _ = world.pair()
    count = array.array("i", [-1])
    fcntl.ioctl(client.fileno(), termios.FIONREAD, count)
    return count[0]


@case
def fionread_of_a_listener(world: World):
    return outcome(fcntl.ioctl, world.listener(), termios.FIONREAD, array.array("i", [-1]))


@case
def unknown_ioctl(world: World):
    return outcome(fcntl.ioctl, world.pair()[0], 0x1234, 0)


@case
def bytes_of_all_sizes_arrive(world: World):
    client, server = world.pair()
    sizes = [1, 2, 1447, 1448, 1449, 2799, 2800, 65535, 65536, 65537]
    thread = threading.Thread(target=lambda: [client.sendall(bytes([n % 251]) * size) for n, size in enumerate(sizes)])
    thread.start()
    results = [server.recv(size, socket.MSG_WAITALL) == bytes([n % 251]) * size for n, size in enumerate(sizes)]
    thread.join()
    return results
