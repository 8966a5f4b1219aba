"""Errors of the engine. Everything that netcon raises on purpose is a `NetconError`."""

from __future__ import annotations


class NetconError(Exception):
    """Base of all errors that netcon raises on purpose. Its text says what to do."""


class DecodeError(NetconError):
    """Bytes or text from outside do not have the form they must have. Every decoder raises this and nothing else."""


class EncodeError(NetconError, ValueError):
    """A value cannot be put on the wire: a limit of the protocol is exceeded."""
