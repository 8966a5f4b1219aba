"""Errors of the service and the home folder. Each says what is wrong and what to do about it."""

from __future__ import annotations

from netcon.core.errors import NetconError


class ServiceError(NetconError):
    """The service cannot start or go on."""


class PortError(ServiceError):
    """A network's port cannot be made. The text says what to do."""


class HomeError(ServiceError):
    """A file of the home folder is missing, corrupt or not ours. The text names it."""


class HomeInUseError(HomeError):
    """Another service holds the home folder."""


class SettingsError(HomeError):
    """`local.conf` says something that cannot be used. The text names the file and the key."""
