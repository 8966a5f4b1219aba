"""Captures of networks' frames (`netcon capture`): made and ended through the API, read from a socket in the home's run folder.

A capture has a Unix socket of its own, mode 0600. It begins when its reader connects; the data plane writes pcapng straight to that
connection, and drops what the reader is too slow for. It ends at its limits, when it is told to, when its network is left, or when
the reader has gone.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from netcon import __version__
from netcon.core.address import format_network
from netcon.core.errors import NetconError
from netcon.dataplane.reactor import Capture
from netcon.service.paths import run_folder

if TYPE_CHECKING:
    from netcon.service.ports import Port

log = logging.getLogger("netcon.captures")

CAPTURES_MAX = 16
_READER_MAY_TAKE_S = 30.0  # to connect
_REST_MAY_TAKE_S = 5.0  # to read what was captured before the end
_FRAMES_MAX = 1 << 53
_DEFAULT_BYTES = 1 << 30
_BUFFER_BYTES = 4 << 20


class CaptureRefused(NetconError):
    """A capture that cannot be made; the text says why."""


class CaptureRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /network/{network}/capture. `limit`: bytes of the file. Zero and empty: no limit, or anything."""

    snaplen: int = 262144
    frames: int = 0
    limit: int = _DEFAULT_BYTES
    ethertype: int = 0
    host: str = ""
    port: int = 0

    def check(self) -> None:
        """CaptureRefused."""
        for name, lowest, highest in (
            ("snaplen", 1, 262144),
            ("frames", 0, _FRAMES_MAX),
            ("limit", 0, _FRAMES_MAX),
            ("ethertype", 0, 0xFFFF),
            ("port", 0, 0xFFFF),
        ):
            if not lowest <= getattr(self, name) <= highest:
                raise CaptureRefused(f"{name}: {getattr(self, name)} is not in {lowest} .. {highest}")
        self.address()

    def address(self) -> bytes:
        if not self.host:
            return b""
        try:
            return ipaddress.ip_address(self.host).packed
        except ValueError:
            raise CaptureRefused(f"host: {self.host!r} is not an IP address") from None


@dataclass
class RunningCapture:
    """`native` is None until the reader has connected."""

    id: int
    network: int
    request: CaptureRequest
    path: Path
    listener: trio.socket.SocketType
    scope: trio.CancelScope
    native: Capture | None = None

    def as_object(self) -> dict[str, Any]:
        counted = ("seen", "matched", "written", "dropped", "bytes")
        stats = self.native.stats() if self.native else dict.fromkeys(counted, 0)
        return {
            "id": self.id,
            "network": format_network(self.network),
            "socket": str(self.path),
            "reading": self.native is not None,
            **{name: stats[name] for name in counted},
            "filter": msgspec.to_builtins(self.request),
        }


class Captures:
    """All captures of the service."""

    def __init__(self, home: Path, nursery: trio.Nursery) -> None:
        self._home = home
        self._nursery = nursery
        self._running: dict[int, RunningCapture] = {}
        self._last = 0
        for left in run_folder(home).glob("capture-*.sock"):  # of a service that was killed
            left.unlink(missing_ok=True)

    def all(self) -> list[RunningCapture]:
        return list(self._running.values())

    def get(self, number: int) -> RunningCapture | None:
        return self._running.get(number)

    def start(self, port: Port, request: CaptureRequest) -> RunningCapture:
        """Ready for its reader. CaptureRefused."""
        request.check()
        if len(self._running) >= CAPTURES_MAX:
            raise CaptureRefused(f"{CAPTURES_MAX} captures run already: end one of them first")
        self._last += 1
        path = run_folder(self._home) / f"capture-{self._last}.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(path))
            path.chmod(0o600)
            listener.listen(1)
        except OSError as error:
            listener.close()
            raise CaptureRefused(f"{path}: {error.strerror or error}") from None
        listener.setblocking(False)
        waiting = trio.socket.from_stdlib_socket(listener)
        capture = RunningCapture(self._last, port.network, request, path, waiting, trio.CancelScope())
        self._running[capture.id] = capture
        self._nursery.start_soon(self._serve, capture, port)
        return capture

    async def _serve(self, capture: RunningCapture, port: Port) -> None:
        connection: trio.socket.SocketType | None = None
        try:
            with capture.scope:
                with trio.move_on_after(_READER_MAY_TAKE_S), capture.listener:
                    connection, _ = await capture.listener.accept()
                if connection is None:
                    return
                capture.path.unlink(missing_ok=True)
                request = capture.request
                capture.native = Capture(
                    port.end,
                    connection.fileno(),
                    snaplen=request.snaplen,
                    frames=request.frames,
                    bytes=request.limit,
                    buffer_bytes=_BUFFER_BYTES,
                    ethertype=request.ethertype,
                    host=request.address(),
                    port=request.port,
                    interface=port.device,
                    application=f"netcon {__version__}",
                )
                del port  # its end's number may be used again once the network was left
                # It has nothing to say, so what can be read is its end; which comes too when it has seen ours.
                await trio.lowlevel.wait_readable(connection)
        except (OSError, RuntimeError) as error:  # no descriptor; the reactor was stopped meanwhile
            log.warning("capture %d of network %s: %s", capture.id, format_network(capture.network), error)
        finally:
            capture.path.unlink(missing_ok=True)
            capture.listener.close()
            if capture.native is not None:
                capture.native.close()
            if connection is not None:
                connection.close()
            del self._running[capture.id]

    def finish(self, capture: RunningCapture) -> None:
        """The end of the file, as the reader takes it; a reader that does not loses the rest."""
        if capture.native is None:
            capture.scope.cancel()
        else:
            capture.native.finish()
            capture.scope.deadline = min(capture.scope.deadline, trio.current_time() + _REST_MAY_TAKE_S)

    def port_closes(self, network: int) -> None:
        """The network is left, or gets another kind of port: its captures end."""
        for capture in self.all():
            if capture.network == network:
                self.finish(capture)

    def close(self) -> None:
        """The service ends: what the readers take at once they get."""
        for capture in self.all():
            self.finish(capture)
