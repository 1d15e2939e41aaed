"""Checks of parameters: each returns what it checked in one form, or raises ParameterError."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from .describe import shown
from .exceptions import ParameterError

__all__ = [
    "check_source",
    "did_you_mean",
    "is_iterable",
    "item_limit",
    "limits",
    "optional_number",
    "whole_number",
]


def whole_number(value: Any, name: str, least: int, besides: str = "") -> int:
    """Return a parameter as an int, or raise ParameterError.

    Every kind of whole number is taken, also a float that is one: ``1e2`` is 100.

    Parameters
    ----------
    value
        What was given.
    name : str
        Name of the parameter, for the message.
    least : int
        The smallest value that is allowed.
    besides : str
        What the message says that may be given instead.
    """
    number = least - 1
    if not isinstance(value, bool):
        try:
            number = operator.index(value)
        except TypeError:
            if isinstance(value, float | np.floating) and float(value).is_integer():
                number = int(value)
    if number < least:
        raise ParameterError(f"{name} must be {besides}a whole number from {least} on, got {value!r}")
    return number


def optional_number(value: object, name: str, least: int) -> int | None:
    """Return a parameter that may be None, and else is a whole number."""
    return None if value is None else whole_number(value, name, least, "None or ")


def item_limit(max_iter: object) -> int | None:
    """Return `max_iter` as an int, or as None if it is None or infinite."""
    if max_iter is None or (isinstance(max_iter, float | np.floating) and max_iter == math.inf):
        return None
    return optional_number(max_iter, "max_iter", 0)


def limits(*args: object, **kwargs: object) -> tuple[int | None, bool]:
    """Return what a Streamer is called with: how many items it gives, and whether it cycles."""
    try:
        max_iter, cycle, max_items = _called_with(*args, **kwargs)
    except TypeError as error:
        raise ParameterError(
            f"a Streamer is called with max_iter and cycle, but {str(error).split('() ', 1)[-1]}; to "
            "transform a stream, write Streamer(function, stream, ...)"
        ) from None
    if max_items is not None:
        if max_iter is not None:
            raise ParameterError("max_iter and max_items are the same; give one of them")
        max_iter = max_items
    if not isinstance(cycle, int | np.bool_) or cycle not in (0, 1):
        raise ParameterError(f"cycle must be True or False, got {cycle!r}")
    return item_limit(max_iter), bool(cycle)


def _called_with(
    max_iter: object = None, cycle: object = False, *, max_items: object = None
) -> tuple[object, object, object]:
    return max_iter, cycle, max_items


def is_iterable(value: object) -> bool:
    """Whether ``iter(value)`` works, as far as the class tells: to call it might open something."""
    kind = type(value)
    return hasattr(kind, "__iter__") or (hasattr(kind, "__getitem__") and not isinstance(value, type))


def check_source(source: object, has_arguments: bool) -> bool:
    """Check that a Streamer can be made of `source`, and return whether that is called to open a stream."""
    iterable, kind = is_iterable(source), type(source).__name__
    if not (iterable or callable(source)):
        raise ParameterError(
            f"Streamer takes an iterable or a generator function, not {shown(source)} of type {kind}"
        )
    if has_arguments and not callable(source):
        raise ParameterError(
            f"arguments were given, but {shown(source)} of type {kind} is an iterable, which takes none; "
            "pass a generator function to use them"
        )
    return callable(source) and (has_arguments or not iterable)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known one, if one is close."""
    import difflib  # for an error alone

    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
