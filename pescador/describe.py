"""What things look like in messages.

:func:`shown` is for the parts of a recipe. :func:`describe` is for items: it tells their keys, shapes and
dtypes, and not their data. An item may be anything: it may refer to itself, be nested without end, or be an
object of which every attribute raises. So what is asked of it is bounded, its own code is not run where that
can be avoided, and whatever goes wrong leaves a shorter text.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from .opening import START
from .seeding import RNG

__all__ = ["describe", "shown"]

MAX_DEPTH = 5
MAX_KEYS = 20  # of one level
MAX_ENTRIES = 4  # of a list
MAX_PARTS = 60  # in all
MAX_WORD = 60  # characters of a key, of a name or of a dtype
MAX_TEXT = 2000  # characters in all
MAX_ARGUMENT = 60  # characters of a text, path or number in a recipe

# What the code of an item may raise; but not a Ctrl-C, which comes from elsewhere.
_ANYTHING = (Exception, SystemExit, GeneratorExit)

_SCALARS = (int, float, complex, bool, type(None))


_UNKNOWN = object()  # stands for a value that could not be had


def shown(value: object) -> str:
    """Return a short text for a part of a recipe: the name of a function, the type of anything large."""
    if isinstance(value, functools.partial):
        return f"partial({shown(value.func)}, ...)"
    if isinstance(value, str | bytes | int | float | complex | None | os.PathLike):
        text = repr(value)
        # The end of a path tells more than its beginning.
        return text if len(text) <= MAX_ARGUMENT else f"{text[:15]}...{text[15 + 3 - MAX_ARGUMENT :]}"
    if value is RNG or value is START:
        return repr(value)
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else f"<{type(value).__name__}>"


def describe(item: Any) -> str:
    """Return a text with the keys, shapes and dtypes of an item, without its data; it never fails."""
    try:
        return _shortened(_part(item, MAX_DEPTH, iter(range(MAX_PARTS))), MAX_TEXT)
    except _ANYTHING:
        return "an item that cannot be described"


def _part(item: Any, depth: int, budget: Iterator[int]) -> str:
    """Return the text of an item or of a part of it; each takes one number off the budget."""
    if item is _UNKNOWN:
        return "?"
    if next(budget, None) is None:
        return "..."
    name = "object"
    try:
        kind = type(item)  # not __class__, which is code of the item
        name = _shortened(type.__dict__["__name__"].__get__(kind), MAX_WORD)
        if issubclass(kind, np.ndarray | np.generic):
            base: Any = np.ndarray if issubclass(kind, np.ndarray) else np.generic
            return _array(name, base.shape.__get__(item), base.dtype.__get__(item))
        if issubclass(kind, dict):
            return _with_keys(dict.items(item), depth, budget)
        if issubclass(kind, tuple | list):
            return _sequence(name, tuple if issubclass(kind, tuple) else list, item, depth, budget)
        if kind in _SCALARS or issubclass(kind, str | bytes | type):
            return name
        if issubclass(kind, Mapping) or (hasattr(kind, "keys") and hasattr(kind, "__getitem__")):
            return _with_keys(_pairs(item), depth, budget)
        shape = item.shape
        if issubclass(type(shape), tuple) and all(type(length) is int for length in shape):
            return _array(name, tuple(shape), item.dtype)
    except _ANYTHING:
        pass  # then the name of its type must do
    return name


def _array(name: str, shape: tuple[int, ...], dtype: Any) -> str:
    return f"{name}(shape={shape}, dtype={_shortened(str(dtype), MAX_WORD)})"


def _pairs(item: Any) -> Iterator[tuple[Any, Any]]:
    for key in item.keys():  # noqa: SIM118 -- a row of a table is no Mapping: it iterates over its values
        try:
            value = item[key]
        except _ANYTHING:
            value = _UNKNOWN
        yield key, value


def _with_keys(pairs: Iterable[tuple[Any, Any]], depth: int, budget: Iterator[int]) -> str:
    if not depth:
        return "{...}"
    shown: list[str] = []
    for key, value in islice(pairs, MAX_KEYS + 1):
        many = len(shown) == MAX_KEYS
        shown.append("..." if many else f"{_key(key)}: {_part(value, depth - 1, budget)}")
    return "{" + ", ".join(shown) + "}"


def _sequence(name: str, kind: Any, item: Any, depth: int, budget: Iterator[int]) -> str:
    many = kind.__len__(item)
    if not depth:
        return f"{name} of {many}"
    entries = [_part(entry, depth - 1, budget) for entry in islice(kind.__iter__(item), MAX_ENTRIES)]
    return f"{name} of {many}: [{', '.join(entries)}{', ...' if many > MAX_ENTRIES else ''}]"


def _key(key: Any) -> str:
    kind = type(key)
    if issubclass(kind, str):
        return repr(_shortened(str.__str__(key), MAX_WORD))
    if issubclass(kind, bytes):
        return repr(bytes.__getitem__(key, slice(MAX_WORD)))
    if kind in _SCALARS and (kind is not int or key.bit_length() <= 128):
        return repr(key)
    return _shortened(type.__dict__["__name__"].__get__(kind), MAX_WORD)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
