"""Exceptions as bytes, exceptions in messages, and what is raised for an item that cannot be loaded.

The class of an exception may be the user's, so to pickle, load or show one may raise anything.
"""

from __future__ import annotations

import pickle
import traceback
from typing import Any

import cloudpickle

from ...exceptions import WorkerError

__all__ = ["RemoteTraceback", "Unloadable", "describe_error", "dump_error", "load_error"]


class RemoteTraceback(Exception):  # noqa: N818  # it is no error, but shows where one was raised
    """Cause of an exception that was raised in a worker: shows where it was raised there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Unloadable(Exception):  # noqa: N818  # `error` is the error
    """Raised for an item that raised when it was loaded.

    Attributes
    ----------
    kind : str
        The type of the item, as far as it is known.
    error : BaseException
        What it raised, which becomes the cause of the error that users see.
    """

    def __init__(self, kind: str, error: BaseException) -> None:
        super().__init__(kind, error)
        self.kind = kind
        self.error = error


def describe_error(error: BaseException | None) -> str:
    """Return the type of an exception and its text, if it has one, for the message of another exception."""
    kind = type(error).__name__
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as other:
        return f"{kind} (its text raises {type(other).__name__})"
    return f"{kind}: {text}" if text else kind


def dump_error(error: BaseException) -> tuple[bytes | None, str]:
    """Return an exception as a pickle, and its traceback as text.

    In place of the pickle there is None if the exception can't be pickled, or not be loaded again.
    """
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:  # an exception whose __str__ raises; a Ctrl-C is the consumer's business
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__ + "\n"
    try:
        data: bytes | None = cloudpickle.dumps(error, 5)
        pickle.loads(data)  # type: ignore[arg-type]
    except BaseException:
        data = None
    return data, text


def load_error(dumped: tuple[bytes | None, str], where: str) -> BaseException:
    """Return the exception, with the worker's traceback as its cause.

    One that cannot be loaded becomes a WorkerError that holds its text.
    """
    data, text = dumped
    error: Any = None
    if data is not None:
        try:
            error = pickle.loads(data)
        except KeyboardInterrupt:
            raise
        except BaseException:
            error = None
    if not isinstance(error, BaseException):
        return WorkerError(f"a stream raised in {where}, and the exception can't be sent as it is:\n{text}")
    error.__cause__ = RemoteTraceback(text)
    return error
