"""Whether two items are the same, and if not, in which part of them they differ."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final

import numpy as np

from ...backends.protocol.pickling import dump
from ...describe import describe

__all__ = ["difference", "first_difference"]

_ANYTHING: Final = (Exception, SystemExit, GeneratorExit)  # what the code of an item may raise
_ATOMS: Final = {bool, bytes, complex, float, int, str, type(None)}
_MAX_TEXT: Final = 60  # characters of a value that is shown


def first_difference(ones: list[Any], others: list[Any]) -> tuple[int, str] | None:
    """Return the number of the first item that differs, and how; None if all that both have are the same."""
    for number, one, other in zip(count(), ones, others):  # they need not be equally many
        how = difference(one, other)
        if how is not None:
            return number, how
    return None


def difference(one: Any, other: Any, path: str = "item") -> str | None:
    """Return how two items differ, or None: in type, dtype, shape and values; NaN is equal to NaN.

    What has no equality of its own is compared by its attributes, else by its pickle. What has none of these
    (a lock) cannot be compared, and counts as equal.
    """
    try:
        return _difference(one, other, path)
    except _ANYTHING:  # it is nested too deeply, or its class does not let itself be looked at
        return None if _have_equal_pickles(one, other) else f"{path} differs"


def _difference(one: Any, other: Any, path: str) -> str | None:
    if one is other:
        return None
    if type(one) is not type(other):
        return f"{path} is {describe(one)}, and {describe(other)}"
    if isinstance(one, np.ndarray):
        return _of_arrays(one, other, path)
    if isinstance(one, np.generic):
        return _of_arrays(np.asarray(one), np.asarray(other), path)
    if isinstance(one, float | complex):
        return None if one == other or (one != one and other != other) else _shown(path, one, other)
    if isinstance(one, Mapping):
        if list(one) != list(other):
            return f"{path} has the keys {list(one)!r:.100}, and {list(other)!r:.100}"
        pairs = [(f"{path}[{key!r:.50}]", one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            return f"{path} has {len(one)} entries, and {len(other)}"
        if (
            _ATOMS.issuperset(map(type, one))
            and list(map(type, one)) == list(map(type, other))
            and one == other
        ):
            return None  # most long ones are such
        pairs = [(f"{path}[{i}]", *entries) for i, entries in enumerate(zip(one, other, strict=True))]
    elif _are_equal(one, other):
        return None
    elif getattr(one, "__dict__", None):
        pairs = [(path, vars(one), vars(other))]
    else:
        return None if _have_equal_pickles(one, other) else _shown(path, one, other)
    return next(filter(None, (_difference(a, b, inner) for inner, a, b in pairs)), None)


def _of_arrays(one: Any, other: Any, path: str) -> str | None:
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"{path} is {describe(one)}, and {describe(other)}"
    if isinstance(one, np.ma.MaskedArray):
        masks = _of_arrays(np.ma.getmaskarray(one), np.ma.getmaskarray(other), f"{path}.mask")
        return masks or _of_arrays(one.filled(), other.filled(), path)
    if one.dtype.hasobject:
        return _difference(one.tolist(), other.tolist(), path)
    one, other = np.asarray(one), np.asarray(other)
    if one.tobytes() == other.tobytes():
        return None
    if one.dtype.names:  # there may be anything between the fields
        return next(
            filter(None, (_of_arrays(one[n], other[n], f"{path}[{n!r}]") for n in one.dtype.names)), None
        )
    same = (one == other) | ((one != one) & (other != other))
    if np.all(same):
        return None
    place = tuple(np.argwhere(~np.asarray(same))[0].tolist())
    where = f"{path}[{', '.join(map(str, place))}]" if place else path
    return _shown(where, one[place], other[place])


def _are_equal(one: Any, other: Any) -> bool:
    try:
        equal = one == other
        return bool(equal.all() if hasattr(equal, "all") else equal)
    except _ANYTHING:
        return False


def _have_equal_pickles(one: Any, other: Any) -> bool:
    try:
        data = dump(one)
    except _ANYTHING:
        return True
    try:
        return data == dump(other)
    except _ANYTHING:
        return False


def _shown(path: str, one: Any, other: Any) -> str:
    texts = []
    for value in (one, other):
        try:
            texts.append(f"{value!r:.{_MAX_TEXT}}")
        except _ANYTHING:
            texts.append(describe(value))
    return f"{path} is {texts[0]}, and {texts[1]}"
