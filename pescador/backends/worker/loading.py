"""Recipes as bytes, the worker's side (see :mod:`.recipe`)."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...core import Streamer
from ...exceptions import PescadorError
from ..protocol import mapped, script
from ..system import shared_memory

__all__ = ["Shelf"]


class Shelf:
    """The segments and parts that a worker has, and what it makes of them. Used by one thread."""

    def __init__(self) -> None:
        self._segments: dict[int, Any] = {}  # mappings
        self._parts: dict[int, bytes] = {}  # that were not loaded yet
        self._loaded: dict[int, Any] = {}
        # An array is one object for all who refer to it, as it is in the consumer.
        self._arrays: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()

    def add_segment(self, number: int, n_bytes: int, fd: int) -> None:
        """Map a segment. Closes `fd`."""
        try:
            self._segments[number] = shared_memory.adopt(fd, n_bytes, private=True).base
        except PescadorError as error:  # which is raised when a recipe needs it
            self._segments[number] = error
        finally:
            os.close(fd)

    def add_part(self, number: int, data: bytes) -> None:
        """Take a part, which is loaded when it is needed."""
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

    def load(self, data: bytes) -> Streamer[Any]:
        """Return the stream of a recipe."""
        stream: Streamer[Any] = _Unpickler(data, self).load()
        return stream

    def part(self, number: int) -> Any:
        """Return the object that a part is."""
        data = self._parts.get(number)
        if data is not None:
            self._loaded[number] = _Unpickler(data, self).load()
            del self._parts[number]  # only now, so that one which cannot be loaded says so each time
        return self._loaded[number]

    def array(self, number: int, *look: Any) -> Any:
        """Return an array in a segment."""
        key = number, *look
        array = self._arrays.get(key)
        if array is None:
            offset, shape, dtype, order, writeable, is_map = look
            memory = self._segments[number]
            if isinstance(memory, PescadorError):
                raise memory
            array = np.ndarray(shape, dtype, memory, offset, None, order)
            if is_map:
                array = array.view(np.memmap)
            array.flags.writeable = writeable
            self._arrays[key] = array
        return array


class _Unpickler(script.Unpickler):
    def __init__(self, data: bytes, shelf: Shelf) -> None:
        super().__init__(io.BytesIO(data))
        self._shelf = shelf

    def persistent_load(self, pid: Any) -> Any:
        kind, *what = pid
        if kind == "part":
            return self._shelf.part(*what)
        if kind == "array":
            return self._shelf.array(*what)
        if kind == "file":
            return mapped.map_again(*what)
        return super().persistent_load(pid)
