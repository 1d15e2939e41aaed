"""Everything pescador raises on purpose.

All of it is a :class:`PescadorError`; each kind also inherits the builtin a user would catch.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "MissingKeyError",
    "MissingLibraryError",
    "ParameterError",
    "PescadorError",
    "WorkerError",
]


class PescadorError(Exception):
    """Base class of all errors raised by pescador."""


class ParameterError(PescadorError, ValueError):
    """An argument has a value or a type that cannot work."""


class DataError(PescadorError, ValueError):
    """An item of a stream does not have the form that a map needs."""


class MissingKeyError(DataError, KeyError):
    """An item of a stream lacks a key."""

    __str__ = Exception.__str__  # that of KeyError shows the repr of the message


class MissingLibraryError(PescadorError, ImportError):
    """A library that an adaptor is for cannot be imported."""


class WorkerError(PescadorError, RuntimeError):
    """A background worker died or stalled, or what it sent cannot be understood."""
