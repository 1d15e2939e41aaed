"""Exceptions as bytes."""

from __future__ import annotations

import contextlib
import pickle
import traceback
from typing import Any

import cloudpickle

from ..exceptions import PescadorError, WorkerError

__all__ = ["RemoteTraceback", "cannot_start_thread", "dump_error", "load_error"]


class RemoteTraceback(Exception):  # noqa: N818  # it is no error, but shows where one was raised
    """Cause of an exception that was raised in a worker: shows where it was raised there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_error(error: BaseException) -> tuple[bytes | None, str]:
    """Return an exception as a pickle, None if it can't be pickled and loaded again, and its traceback."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:  # an exception whose __str__ raises
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__ + "\n"
    try:
        data: bytes | None = cloudpickle.dumps(error, 5)
        pickle.loads(data)  # type: ignore[arg-type]
    except Exception:
        data = None
    return data, text


def load_error(dumped: tuple[bytes | None, str], where: str) -> BaseException:
    """Return the exception, with the worker's traceback as its cause.

    One that cannot be loaded becomes a WorkerError that holds its text.
    """
    data, text = dumped
    error: Any = None
    if data is not None:
        with contextlib.suppress(Exception):
            error = pickle.loads(data)
    if not isinstance(error, BaseException):
        return WorkerError(f"a stream raised in {where}, and the exception can't be sent as it is:\n{text}")
    error.__cause__ = RemoteTraceback(text)
    return error


def cannot_start_thread(error: RuntimeError) -> PescadorError:
    """Return what to raise where a thread cannot be started."""
    return PescadorError(
        f"a worker needs a thread: {error}. Are there processes ('ulimit -u') and memory ('ulimit -v') left?"
    )
