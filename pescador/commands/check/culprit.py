"""What of a stream keeps it from being sent to another process."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...backends.consumer.recipe_pickler import pickled
from ...backends.protocol.errors import describe_error
from .parts import parts

__all__ = ["Culprit", "find_culprit"]

MAX_DEPTH = 50


class Culprit(NamedTuple):
    """A part that cannot be pickled, though what it is made of can be, as far as one can see into it."""

    path: str
    value: Any
    error: str


def find_culprit(value: Any, path: str) -> Culprit | None:
    """Return the innermost part of an object that cannot be pickled; None if all can be."""
    error = _failure(value)
    if error is None:
        return None
    found = Culprit(path, value, error)
    for _ in range(MAX_DEPTH):
        for inner, part in parts(found.path, found.value):
            if part is not found.value and (error := _failure(part)) is not None:
                found = Culprit(inner, part, error)
                break
        else:
            break
    return found


def _failure(value: Any) -> str | None:
    """Return why an object cannot be pickled as recipes are; None if it can be. No large array is copied."""
    try:
        pickled(value, lambda _: (0, 0), None)
    except Exception as error:
        return describe_error(error)
    return None
