"""Recipes as bytes, the worker's side (see :mod:`..consumer.recipes`).

Segments and parts come before the first recipe that refers to them, and stay until the consumer says that no
recipe will do so any more.
"""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core import Streamer
from ...exceptions import PescadorError, WorkerError
from ..protocol import mapped, script
from ..protocol.mapped import InSegment
from ..protocol.script import PersistentId, RecipeData
from ..system import shared_memory
from ..system.shared_memory import Handle

__all__ = ["Shelf"]

Array = npt.NDArray[Any]


class Shelf:
    """The segments and parts that a worker has, and what it makes of them. Used by its main thread alone."""

    def __init__(self) -> None:
        self._segments: dict[int, Any] = {}  # mappings, and errors of those that could not be mapped
        self._parts: dict[int, bytes] = {}  # that were not loaded yet
        self._loaded: dict[int, Any] = {}
        # An array is one object for all who refer to it, as it is in the consumer.
        self._arrays: weakref.WeakValueDictionary[InSegment, Array] = weakref.WeakValueDictionary()

    def add_segment(self, number: int, n_bytes: int, handle: Handle) -> None:
        """Map a segment. Closes the handle."""
        try:
            self._segments[number] = shared_memory.adopt(handle, n_bytes, private=True).base
        except PescadorError as error:  # which is raised when a recipe refers to it
            self._segments[number] = error
        finally:
            shared_memory.close_all([handle])

    def add_memory(self, number: int, memory: Array | PescadorError) -> None:
        """Take the memory of a segment; of one that could not be had, what recipes that refer to it raise."""
        self._segments[number] = memory

    def add_part(self, number: int, data: bytes) -> None:
        """Take a part, which is loaded when a recipe refers to it for the first time."""
        self._parts[number] = data

    def drop(self, numbers: Iterable[int]) -> None:
        """Drop segments and parts. What was made of them stays for as long as somebody refers to it."""
        for number in numbers:
            for shelf in (self._segments, self._parts, self._loaded):
                shelf.pop(number, None)

    def clear(self) -> None:
        """Drop all."""
        for shelf in (self._segments, self._parts, self._loaded):
            shelf.clear()

    def load(self, data: RecipeData) -> Streamer[Any]:
        """Return the stream of a recipe."""
        if isinstance(data, tuple):
            number, args, kwargs = data
            return Streamer(self.part(number), *args, **kwargs)
        stream: Streamer[Any] = _Unpickler(data, self).load()
        return stream

    def part(self, number: int) -> Any:
        """Return the object that a part is."""
        data = self._parts.get(number)
        if data is not None:
            self._loaded[number] = _Unpickler(data, self).load()
            del self._parts[number]  # only now, so that one which cannot be loaded says so each time
        try:
            return self._loaded[number]
        except KeyError:
            raise _missing("part", number) from None

    def array(self, place: InSegment) -> Array:
        """Return an array in a segment."""
        array = self._arrays.get(place)
        if array is None:
            memory = self._segments.get(place.segment)
            if memory is None:
                raise _missing("segment", place.segment)
            if isinstance(memory, PescadorError):
                raise memory
            array = np.ndarray(place.shape, place.dtype, memory, place.offset, None, place.order)
            if place.is_memmap:
                array = array.view(np.memmap)
            array.flags.writeable = place.is_writeable and array.flags.writeable
            self._arrays[place] = array
        return array


def _missing(kind: str, number: int) -> PescadorError:
    return WorkerError(
        f"it refers to {kind} {number}, which this worker does not have. That is an error in pescador itself"
    )


class _Unpickler(script.Unpickler):
    def __init__(self, data: bytes, shelf: Shelf) -> None:
        super().__init__(io.BytesIO(data))
        self._shelf = shelf

    def persistent_load(self, pid: PersistentId) -> Any:
        if pid[0] == "part":
            return self._shelf.part(pid[1])
        if pid[0] == "array":
            return self._shelf.array(pid[1])
        if pid[0] == "file":
            return mapped.map_again(pid[1])
        return super().persistent_load(pid)
