"""Shared memory with the large arrays of recipes, the consumer's side (see :mod:`.recipes`)."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from ..protocol.pickling import order_of
from ..system import shared_memory
from ..system.shared_memory import ALIGNMENT, Bytes, Handle

__all__ = ["Array", "Place", "Segment", "contents_of", "owner_of", "place_of"]

CHUNK_BYTES = 1 << 18  # that are compared at a time, for they fit into a cache

REMEDY = (
    "It is for a recipe; have its generator load large data itself, give the container or job more memory, "
    "or use backend='thread'"
)

Array = npt.NDArray[Any]

Place = tuple[int, tuple[int, ...], tuple[int, ...], np.dtype[Any]]
"""The address, shape, strides and dtype of an array."""


class Segment:
    """Shared memory with arrays, the consumer's side.

    While a recipe is pickled, places are reserved one by one; then :meth:`fill` takes the memory and copies
    the arrays there.
    """

    needs = ()
    handles: tuple[Handle, ...] = ()

    def __init__(self, number: int, given_up: deque[int]) -> None:
        self.number = number
        self.n_bytes = 0
        self.places: set[Place] = set()  # of the arrays that are still there
        self._pending: list[tuple[int, Bytes]] = []
        self._given_up = given_up

    def reserve(self, place: Place, contents: Bytes) -> int:
        """Return the offset at which an array will be."""
        offset = self.n_bytes
        self._pending.append((offset, contents))
        self.places.add(place)
        self.n_bytes += -(-contents.nbytes // ALIGNMENT) * ALIGNMENT
        return offset

    def fill(self) -> None:
        """Take the memory, and copy the arrays there."""
        handle, self._memory = shared_memory.create(self.n_bytes, REMEDY, copy_on_write=True)
        self.handles = (handle,)
        self.command = ("segment", self.number, self.n_bytes)
        for offset, contents in self._pending:
            self._memory[offset : offset + contents.nbytes] = contents
        self._pending.clear()

    def holds(self, offset: int, contents: Bytes) -> bool:
        """Whether these bytes are there."""
        held = self._memory[offset : offset + contents.nbytes]
        return all(
            np.array_equal(contents[start : start + CHUNK_BYTES], held[start : start + CHUNK_BYTES])
            for start in range(0, contents.nbytes, CHUNK_BYTES)
        )

    def __del__(self) -> None:
        if self.handles:
            shared_memory.close_all(self.handles)
            self._given_up.append(self.number)


def contents_of(array: Array) -> Bytes:
    """Return the bytes of an array, a copy of them if they do not lie side by side."""
    array = array.view(np.ndarray)
    order = order_of(array)
    if not array.flags.forc:
        array = array.copy(order)
    contents: Bytes = array.reshape(-1, order=order).view(np.uint8)
    return contents


def place_of(array: Array) -> Place:
    """Return what tells an array from others that exist at the same time."""
    address = array.__array_interface__["data"][0]
    return address, array.shape, array.strides, array.dtype


def owner_of(array: Array) -> Array:
    """Return the array that keeps the memory of this one."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
