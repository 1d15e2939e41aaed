"""Checks of parameters that several classes share."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from .exceptions import ParameterError

__all__ = ["did_you_mean", "whole_number"]


def whole_number(value: Any, name: str, least: int, *, or_none: bool = False) -> int:
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
    or_none : bool
        Whether the message names None, too, which the caller has dealt with.
    """
    number = least - 1
    if not isinstance(value, bool):
        try:
            number = operator.index(value)
        except TypeError:
            if isinstance(value, float | np.floating) and float(value).is_integer():
                number = int(value)
    if number < least:
        none = "None or " if or_none else ""
        raise ParameterError(f"{name} must be {none}a whole number from {least} on, got {value!r}")
    return number


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known one, if one is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
