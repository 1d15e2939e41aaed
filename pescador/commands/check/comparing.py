"""Whether two items are the same, and if not, in which part of them they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ...backends.protocol.pickling import dump
from ...describe import describe

__all__ = ["difference", "pickle_of"]

_ANYTHING: Final = (Exception, SystemExit, GeneratorExit)  # what the code of an item may raise


def difference(one: Any, other: Any) -> str | None:
    """Return how two items differ, or None: in type, dtype, shape and values; NaN is equal to NaN.

    What has no equality of its own is compared by its attributes, else by its pickle. What has none of these
    (a lock) cannot be compared, and counts as equal.
    """
    data = pickle_of(one)
    if data is not None and data == pickle_of(other):  # this is fast, and mostly so
        return None
    try:
        return _difference(one, other, "item")
    except _ANYTHING:  # it is nested too deeply, or its class does not let itself be looked at
        return None if data is None else "item differs"


def _difference(one: Any, other: Any, path: str) -> str | None:
    if one is other:
        return None
    if type(one) is not type(other):
        return f"{path} is {describe(one)}, and {describe(other)}"
    if isinstance(one, np.ndarray | np.generic):
        return _of_arrays(one, other, path)
    if isinstance(one, Mapping):
        if list(one) != list(other):
            return f"{path} has the keys {list(one)!r:.100}, and {list(other)!r:.100}"
        pairs = [(f"{path}[{key!r:.50}]", one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            return f"{path} has {len(one)} entries, and {len(other)}"
        pairs = [(f"{path}[{i}]", *entries) for i, entries in enumerate(zip(one, other, strict=True))]
    elif _are_equal(one, other):
        return None
    elif getattr(one, "__dict__", None):
        pairs = [(path, vars(one), vars(other))]
    else:
        return None if pickle_of(one) == pickle_of(other) else _values(path, one, other)
    return next(filter(None, (_difference(a, b, inner) for inner, a, b in pairs)), None)


def _of_arrays(one: Any, other: Any, path: str) -> str | None:
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"{path} is {describe(one)}, and {describe(other)}"
    if isinstance(one, np.ma.MaskedArray):
        masks = _of_arrays(np.ma.getmaskarray(one), np.ma.getmaskarray(other), f"{path}.mask")
        return masks or _of_arrays(one.filled(), other.filled(), path)
    if one.dtype.hasobject:
        return _difference(one.tolist(), other.tolist(), path)
    if one.dtype.names:
        fields = (_of_arrays(one[name], other[name], f"{path}[{name!r}]") for name in one.dtype.names)
        return next(filter(None, fields), None)
    one, other = np.asarray(one), np.asarray(other)
    same = np.asarray((one == other) | ((one != one) & (other != other)))
    if same.all():
        return None
    place = tuple(np.argwhere(~same)[0].tolist())
    return _values(f"{path}[{', '.join(map(str, place))}]" if place else path, one[place], other[place])


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two objects are equal, or both NaN."""
    try:
        equal = (one == other) | ((one != one) & (other != other))
        return bool(equal.all() if hasattr(equal, "all") else equal)
    except _ANYTHING:
        return False


def pickle_of(value: Any) -> bytes | None:
    """Return the pickle of an object; None if it has none."""
    try:
        return dump(value)
    except _ANYTHING:
        return None


def _values(path: str, *values: Any) -> str:
    try:
        one, other = (f"{value!r:.60}" for value in values)
    except _ANYTHING:
        one, other = map(describe, values)
    return f"{path} is {one}, and {other}"
