"""fork, exec, dup, descriptor passing, threads, and sockets that programs make in unusual ways."""

import array
import ctypes
import fcntl
import os
import socket
import subprocess
import sys
import threading

from tests.differential.harness import LIBC, World, case, errno_name, in_child, outcome, receive_all


@case
def socket_flags(world: World):
    sock = world.keep(socket.socket(world.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
    return [
        bool(fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK),
        bool(fcntl.fcntl(sock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC),
    ]


@case
def socket_without_flags(world: World):
    fd = LIBC.socket(world.family, socket.SOCK_STREAM, 0)
    flags = [bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK), bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)]
    os.close(fd)
    return flags


@case
def socket_with_a_bad_type(world: World):
    ctypes.set_errno(0)
    return [LIBC.socket(world.family, 77, 0), errno_name(ctypes.get_errno())]


@case
def socket_with_a_bad_protocol(world: World):
    ctypes.set_errno(0)
    return [LIBC.socket(world.family, socket.SOCK_STREAM, socket.IPPROTO_UDP), errno_name(ctypes.get_errno())]


@case
def socket_with_a_bad_family(world: World):
    ctypes.set_errno(0)
    return [LIBC.socket(200, socket.SOCK_STREAM, 0), errno_name(ctypes.get_errno())]


@case
def socket_takes_the_lowest_number(world: World):
    first = world.stream()
    number = first.fileno()
    first.close()
    return world.stream().fileno() == number


@case
def socket_with_a_full_table(world: World):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    ctypes.set_errno(0)
    result = [LIBC.socket(world.family, socket.SOCK_STREAM, 0), errno_name(ctypes.get_errno())]
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return result


@case
def socket_from_a_number(world: World):
    client, server = world.pair()
    again = world.keep(socket.socket(fileno=os.dup(client.fileno())))
    again.sendall(b"x")
    return [again.family == world.family, again.type == socket.SOCK_STREAM, server.recv(1).decode()]


@case
def fork_child_uses_the_connection(world: World):
    client, server = world.pair()
    child = in_child(lambda: client.sendall(b"from child"))
    return [child, server.recv(10, socket.MSG_WAITALL).decode()]


@case
def fork_child_exit_does_not_close(world: World):
    client, server = world.pair()
    in_child(lambda: None)
    client.sendall(b"x")
    return server.recv(1).decode()


@case
def fork_child_makes_its_own_connection(world: World):
    listener = world.listener()

    def child() -> str:
        sock = socket.create_connection(world.to(listener))
        sock.sendall(b"hi")
        sock.close()
        return "done"

    result = in_child(child)
    server, _ = listener.accept()
    return [result, receive_all(server).decode()]


@case
def fork_child_listens(world: World):
    listener = world.bound()
    result = in_child(lambda: outcome(listener.listen, 4))
    client = world.stream()
    return [result, outcome(client.connect, world.to(listener))]


@case
def exec_inherits_a_connection(world: World):
    client, server = world.pair()
    client.set_inheritable(True)
    program = f"import os; os.write({client.fileno()}, b'after exec')"
    subprocess.run([sys.executable, "-c", program], close_fds=False, check=True)
    return server.recv(10, socket.MSG_WAITALL).decode()


@case
def exec_inherits_a_listener(world: World):
    listener = world.listener()
    listener.set_inheritable(True)
    client = world.stream()
    client.connect(world.to(listener))
    program = (
        f"import socket; s = socket.socket(fileno={listener.fileno()}); c, _ = s.accept();"
        "print(s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), c.getsockname()[0]); c.sendall(b'ok')"
    )
    done = subprocess.run([sys.executable, "-c", program], close_fds=False, check=True, capture_output=True, text=True)
    return [done.stdout.split()[0], done.stdout.split()[1] == world.address, client.recv(2).decode()]


@case
def exec_closes_cloexec(world: World):
    client, _ = world.pair()
    program = f"import os\ntry:\n os.fstat({client.fileno()})\n print('open')\nexcept OSError:\n print('closed')"
    done = subprocess.run([sys.executable, "-c", program], close_fds=False, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@case
def exec_with_an_empty_environment_keeps_the_network(world: World):
    listener = world.listener()
    host, port = world.to(listener)
    program = f"import socket; s = socket.create_connection(({host!r}, {port})); s.sendall(b'there'); s.close()"
    done = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1:]
    server, _ = listener.accept()
    return receive_all(server).decode()


@case
def dup_shares_the_connection(world: World):
    client, server = world.pair()
    copy = os.dup(client.fileno())
    os.write(copy, b"a")
    client.sendall(b"b")
    os.close(copy)
    return server.recv(2, socket.MSG_WAITALL).decode()


@case
def dup2_over_a_connection(world: World):
    first, server = world.pair()
    second, other = world.pair()
    os.dup2(second.fileno(), first.fileno())
    first.sendall(b"x")
    return [server.recv(1).decode(), other.recv(1).decode(), first.getpeername() == other.getsockname()]


@case
def dup_names_are_the_same(world: World):
    client, _ = world.pair()
    copy = world.keep(client.dup())
    return [copy.getsockname() == client.getsockname(), copy.getpeername() == client.getpeername()]


@case
def passing_a_connection(world: World):
    client, server = world.pair()
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [client.fileno()])
    _, fds, _, _ = socket.recv_fds(right, 1, 1)
    passed = world.keep(socket.socket(fileno=fds[0]))
    client.close()
    passed.sendall(b"passed")
    result = [server.recv(6, socket.MSG_WAITALL).decode(), passed.getpeername() == server.getsockname()]
    left.close()
    right.close()
    return result


@case
def passing_a_listener_to_a_child(world: World):
    listener = world.listener()
    left, right = socket.socketpair()
    client = world.stream()
    client.connect(world.to(listener))
    socket.send_fds(left, [b"x"], [listener.fileno()])

    def child() -> str:
        _, fds, _, _ = socket.recv_fds(right, 1, 1)
        server, _ = socket.socket(fileno=fds[0]).accept()
        server.sendall(b"ok")
        return "served"

    result = in_child(child)
    left.close()
    right.close()
    return [result, client.recv(2).decode()]


@case
def closefrom_then_a_new_socket(world: World):
    listener = world.listener()
    name = world.to(listener)

    pid = os.fork()
    if pid == 0:
        os.closerange(3, 4096)
        sock = socket.create_connection(name)
        os._exit(0 if sock.getpeername()[:2] == name else 1)
    return os.waitpid(pid, 0)[1]


@case
def threads_connect_at_once(world: World):
    listener = world.listener(64)
    results: list[str] = []

    def one() -> None:
        sock = world.stream()
        results.append(outcome(sock.connect, world.to(listener)))

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    accepted = [listener.accept()[0] for _ in range(16)]
    for thread in threads:
        thread.join()
    for sock in accepted:
        sock.close()
    return [sorted(results), len(accepted)]


@case
def threads_accept_at_once(world: World):
    listener = world.listener(64)
    served: list[int] = []
    threads = [threading.Thread(target=lambda: served.append(listener.accept()[0].close() is None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        world.keep(socket.create_connection(world.to(listener)))
    for thread in threads:
        thread.join()
    return len(served)


@case
def syscall_by_number(world: World):
    import platform

    numbers = {"x86_64": (41, 42), "aarch64": (198, 203)}[platform.machine()]
    listener = world.listener()
    fd = LIBC.syscall(numbers[0], int(world.family), int(socket.SOCK_STREAM), 0)
    sock = world.keep(socket.socket(fileno=fd))
    return [sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == world.family, outcome(sock.connect, world.to(listener))]


@case
def fstat_says_socket(world: World):
    import stat

    return stat.S_ISSOCK(os.fstat(world.stream().fileno()).st_mode)


@case
def fdopen_streams(world: World):
    client, server = world.pair()
    with client.makefile("w") as out, server.makefile("r") as into:
        out.write("line one\nline two\n")
        out.flush()
        return [into.readline(), into.readline()]


@case
def inherited_environment_in_a_shell(world: World):
    listener = world.listener()
    host, port = world.to(listener)
    program = f"import socket; s = socket.create_connection(({host!r}, {port})); s.sendall(b'sh'); s.close()"
    subprocess.run(["/bin/sh", "-c", f'{sys.executable} -c "$0"', program], check=True)
    server, _ = listener.accept()
    return receive_all(server).decode()


@case
def sigio_is_delivered(world: World):
    import signal

    client, server = world.pair()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
    fcntl.fcntl(client, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(client, fcntl.F_SETFL, fcntl.fcntl(client, fcntl.F_GETFL) | os.O_ASYNC)
    server.sendall(b"x")
    info = signal.sigtimedwait([signal.SIGIO], 5)
    return info is not None


@case
def ioctl_siocatmark(world: World):
    client, _ = world.pair()
    mark = array.array("i", [-1])
    fcntl.ioctl(client.fileno(), 0x8905, mark)
    return mark[0]
