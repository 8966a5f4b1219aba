"""A program for tests that waits in one call, and says how that ended. It knows nothing of netcon.

    python3 waiting.py CALL ADDRESS PORT

Prints READY when nothing is left to do but wait; then, when the call is over, what it gave: an errno's name, or what it returned.
`hold` is the other side: it accepts connections, says and reads nothing, and keeps them open.
"""

from __future__ import annotations

import errno
import select
import socket
import sys


def ready() -> None:
    print("READY", flush=True)


def wait_by(call: str, waiting: socket.socket, events: int) -> None:
    """Until poll, epoll (edge-triggered) or select reports something."""
    ready()
    match call:
        case "poll":
            poll = select.poll()
            poll.register(waiting, events)
            poll.poll()
        case "epoll":
            with select.epoll() as epoll:
                epoll.register(waiting, (select.EPOLLOUT if events & select.POLLOUT else select.EPOLLIN) | select.EPOLLET)
                epoll.poll()
        case "select":
            writing = [waiting] if events & select.POLLOUT else []
            select.select([] if writing else [waiting], writing, [])


def accept(how: str, address: str, port: int) -> str:
    with socket.create_server((address, port)) as listener:
        if how != "accept":
            wait_by(how, listener, select.POLLIN)
            listener.setblocking(False)
        else:
            ready()
        listener.accept()
        return "a connection"


def connect(how: str, address: str, port: int) -> str:
    with socket.socket() as connection:
        if how == "connect":
            ready()
            connection.connect((address, port))
            return "connected"
        connection.setblocking(False)
        connection.connect_ex((address, port))
        wait_by(how, connection, select.POLLOUT)
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode[error] if error else "connected"


def receive(connection: socket.socket) -> str:
    return "data" if connection.recv(1) else "end of file"


def keep_alive(connection: socket.socket) -> str:
    """Waits in read; after a second of silence the peer is asked, once a second, twice."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    ready()
    return receive(connection)


def write(connection: socket.socket) -> str:
    """Waits in write once all buffers are full. Which of the two errors it is depends on how much of a call's data went before."""
    ready()
    try:
        while True:
            connection.sendall(bytes(1 << 20))
    except (ConnectionResetError, BrokenPipeError):
        return "reset or broken pipe"


def run(call: str, address: str, port: int) -> str:
    what, _, how = call.partition("-")
    if what == "accept":
        return accept(how or "accept", address, port)
    if what == "connect":
        return connect(how or "connect", address, port)
    if what == "serve":
        with socket.create_server((address, port)) as listener:
            ready()
            with listener.accept()[0] as connection:
                return receive(connection)
    with socket.create_connection((address, port)) as connection:
        match what:
            case "read":
                ready()
            case "write":
                return write(connection)
            case "keepalive":
                return keep_alive(connection)
            case _:
                wait_by(what, connection, select.POLLIN)
        return receive(connection)


def hold(address: str, port: int) -> None:
    with socket.create_server((address, port), backlog=100) as listener:
        kept = []
        while True:
            kept.append(listener.accept())


def main() -> None:
    call, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if call == "hold":
        hold(address, port)
    try:
        result = run(call, address, port)
    except OSError as error:
        result = errno.errorcode.get(error.errno or 0, repr(error))
    print(result, flush=True)


if __name__ == "__main__":
    main()
