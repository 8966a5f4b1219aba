"""What something in the place of a service can say: ProtocolError, an OSError, whatever it is (found by fuzzing)."""

from __future__ import annotations

import pytest

from netcon.service import socket_rpc
from netcon.service.socket_rpc import NAME_PREFIX, ProtocolError


@pytest.mark.parametrize("data", [b"", bytes(27), socket_rpc.ADDRESS.pack(77, 1, 0, 0, bytes(16))])
def test_addresses(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        socket_rpc.unpack_address(data)


@pytest.mark.parametrize("rest", [b"", b"C", b"CAAAAA", b"C" + b"A" * 50, b"C\xff\xfe\x00"])
def test_names(rest: bytes) -> None:
    with pytest.raises(ProtocolError):
        socket_rpc.decode_service_name(NAME_PREFIX + rest)


def test_names_of_another_family() -> None:
    packed = socket_rpc.SERVICE_NAME.pack(1, 2, 0, 77, 1, 2, 0, bytes(16), bytes(16))
    with pytest.raises(ProtocolError):
        socket_rpc.decode_service_name(socket_rpc.encode_name("C", packed))


def test_interfaces() -> None:
    with pytest.raises(ProtocolError):
        socket_rpc.unpack_interfaces(bytes(socket_rpc.INTERFACE.size + 1))
    packed = socket_rpc.INTERFACE.pack(1, 2, 3, 4, 5, b"\xff\xfe", bytes(6), 0, bytes(28))
    assert socket_rpc.unpack_interfaces(packed)[0].name == "\ufffd\ufffd"
