"""What can go wrong with a controller, told so that the user knows what to do."""

from __future__ import annotations

from netcon.core.errors import NetconError


class ControllerError(NetconError):
    """Base of all errors of the controller and its stores."""


class UnknownNetwork(ControllerError):
    """This controller has no network of that id."""

    def __init__(self, network: int) -> None:
        super().__init__(f"no network {network:016x} on this controller; create it first")
        self.network = network


class UnknownMember(ControllerError):
    """The network has no record of that member."""

    def __init__(self, network: int, member: int) -> None:
        super().__init__(f"network {network:016x} has no member {member:010x}")
        self.network = network
        self.member = member


class UnknownToken(ControllerError):
    """The network has no join token of that id."""

    def __init__(self, network: int, token: str) -> None:
        super().__init__(f"network {network:016x} has no token {token}")
        self.network = network
        self.token = token


class InvalidRequest(ControllerError):
    """A management call whose arguments make no sense as a whole. (Single fields of the wrong kind are ignored, service-api §4.)"""


class CorruptStore(ControllerError):
    """The store's file, or a record in it, cannot be read."""


class StoreFailed(ControllerError):
    """The store could not commit: nothing of the transaction was kept."""
