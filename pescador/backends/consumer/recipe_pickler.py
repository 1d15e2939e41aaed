"""Pickling a recipe, or a part of one: what of it is shared with other recipes, and how the rest is pickled.

Shared is what would take long to pickle or to send each time: large arrays, collections of many entries, long
texts, and the functions and classes that are pickled with their code. In their place the pickle has a
:data:`~.script.PersistentId`, which tells a worker where to find them. The objects themselves are left to the
caller, :mod:`.recipes`, and so is the decision whether they were sent before.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...core import Streamer
from ...opening import START
from ...seeding import RNG
from ..protocol import mapped, script
from ..protocol.mapped import InSegment
from ..protocol.pickling import order_of
from ..protocol.script import PersistentId

__all__ = ["is_plain", "pickled"]

Array = npt.NDArray[Any]

# Arrays from this size on go into segments.
SHARED_BYTES = 1 << 16

# Collections and texts of so many entries and characters are parts.
MANY_ENTRIES: Final = 64
MANY_CHARACTERS: Final = 1 << 12

_ATOMS: Final = frozenset({bool, bytes, complex, float, int, str, type(None)})
_PLAIN: Final = _ATOMS | {type(RNG), type(START)}
_NEVER: Final = frozenset({bool, complex, float, int, type(None)})  # shared
_MANY: Final[dict[type, int]] = {
    **dict.fromkeys((dict, frozenset, list, set, tuple), MANY_ENTRIES),
    **dict.fromkeys((bytearray, bytes, str), MANY_CHARACTERS),
}


def is_plain(streamer: Streamer[Any]) -> bool:
    """Whether a recipe is a function and a few atoms, so that plain pickle does once that is a part."""
    if type(streamer) is not Streamer or type(streamer.streamer) is not FunctionType:
        return False
    values = (*streamer.args, *streamer.kwargs.values()) if streamer.kwargs else streamer.args
    return _PLAIN.issuperset(map(type, values)) and not any(
        type(value) in _MANY and len(value) >= MANY_CHARACTERS for value in values
    )


def pickled(
    value: object,
    share_array: Callable[[Array], tuple[int, int]],
    share_part: Callable[[object], int] | None,
) -> bytes:
    """Return the pickle of a stream, or of an object that is to be a part.

    Parameters
    ----------
    value : object
    share_array : callable
        Has an array put into a segment, and returns the number of that and the offset in it.
    share_part : callable or None
        Has an object made a part, and returns the number of that; it is not called for `value` itself. None
        makes no parts.
    """
    if _is_flat(value):
        return pickle.dumps(value, 5)
    file = io.BytesIO()
    _Pickler(file, value, share_array, share_part).dump(value)
    return file.getvalue()


class _Pickler(script.Pickler):
    def __init__(
        self,
        file: io.BytesIO,
        root: object,
        share_array: Callable[[Array], tuple[int, int]],
        share_part: Callable[[object], int] | None,
    ) -> None:
        super().__init__(file)
        self._root = root
        self._share_array = share_array
        self._share_part = share_part
        self._functions: set[int] = set()  # ids of the functions of streams

    def persistent_id(self, value: Any) -> PersistentId | None:
        kind = type(value)  # called for each object that is pickled
        if kind in _NEVER:
            return None
        if kind in _MANY:
            if len(value) < _MANY[kind]:
                return script.GLOBALS_ID if value is script.GLOBALS else None
        elif kind is np.ndarray or kind is np.memmap:
            return None if value.nbytes < SHARED_BYTES else self._array_id(value)
        elif kind is FunctionType:
            if id(value) not in self._functions:
                return None
        elif isinstance(value, Streamer):
            function = getattr(value.streamer, "func", value.streamer)  # of a partial
            if type(function) is FunctionType and script.is_by_value(function):
                self._functions.add(id(function))
            return None
        elif not isinstance(value, type) or value.__module__ not in script.MAIN:
            return None
        if value is self._root or self._share_part is None:
            return None
        return "part", self._share_part(value)

    def _array_id(self, array: Array) -> PersistentId | None:
        dtype = array.dtype
        if dtype.hasobject or _is_broadcast(array):
            return None
        file = mapped.locate(array)
        if file is not None:
            return "file", file
        number, offset = self._share_array(array)
        is_writeable, is_memmap = array.flags.writeable, type(array) is np.memmap
        order = order_of(array)
        return "array", InSegment(number, offset, array.shape, dtype, order, is_writeable, is_memmap)

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is Streamer:
            value.check_recipe()
            return _streamer, (value.streamer, value.args, value.kwargs)
        if kind is np.ndarray and value.nbytes >= SHARED_BYTES and _is_broadcast(value):
            ends = tuple(slice(None if step else 1) for step in value.strides)
            return np.broadcast_to, (value[ends], value.shape)
        return super().reducer_override(value)


def _streamer(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Streamer[Any]:
    """Return a stream of which this is the recipe: in half the bytes and time of its state."""
    return Streamer(function, *args, **kwargs)


def _is_flat(value: Any) -> bool:
    """Whether an object is a collection of atoms, or a text, so that plain pickle does, and is faster."""
    kind = type(value)
    if kind is dict:
        return _ATOMS.issuperset(map(type, value)) and _ATOMS.issuperset(map(type, value.values()))
    return kind in _MANY and (kind in _ATOMS or _ATOMS.issuperset(map(type, value)))


def _is_broadcast(array: Array) -> bool:
    """Whether several elements of an array are one place in memory."""
    return any(not step and length > 1 for step, length in zip(array.strides, array.shape, strict=True))
