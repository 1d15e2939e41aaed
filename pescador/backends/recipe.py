"""Sending recipes to worker processes.

A recipe is pickled by cloudpickle, so lambdas, closures and functions of a script or notebook work.
Large buffers in it (the memory of arrays) go into shared memory, once for all recipes of a pool that
refer to the same memory, and every worker maps them copy-on-write: n workers over an array of 4 GB need
4 GB, and what one writes into it nobody else sees.

Recipes are sent as they are when they are first opened; changes of their arguments after that do not
reach the workers of that pool.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import cloudpickle

from ..core import Streamer
from ..exceptions import PescadorError
from . import segment

__all__ = ["Buffers", "Recipe", "Recipes", "SharedBuffer"]

# Buffers from this size on go into shared memory.
SHARED_BYTES = 1 << 16

# Pickles up to this size travel in the message itself.
INLINE_BYTES = 1 << 15

# How many recipes a pool keeps pickled.
MAX_RECIPES = 1024

REMEDY = (
    "It is for a recipe; have its generator load large data itself, enlarge the shared memory (docker run "
    "--shm-size), or use backend='thread'"
)


class SharedBuffer:
    """A buffer in shared memory, the consumer's side."""

    __slots__ = ("fd", "n_bytes", "number", "origin")

    def __init__(self, number: int, memory: memoryview, origin: Any) -> None:
        self.number = number
        self.n_bytes = memory.nbytes
        self.origin = origin  # kept, so that its memory is not used for something else
        self.fd, shared = segment.create(self.n_bytes, REMEDY)
        memoryview(shared)[:] = memory.cast("B")  # type: ignore[arg-type]  # a buffer

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Recipe(NamedTuple):
    """A pickled stream, the consumer's side."""

    number: int
    data: bytes | SharedBuffer
    buffers: list[tuple[SharedBuffer, bool]]  # and whether it is read-only

    def message(self) -> tuple[bytes | int, list[tuple[int, bool]]]:
        """Return what :meth:`Buffers.load` needs, besides the buffers."""
        data = self.data if isinstance(self.data, bytes) else self.data.number
        return data, [(buffer.number, readonly) for buffer, readonly in self.buffers]

    def shared(self) -> list[SharedBuffer]:
        """Return all buffers that a worker must have."""
        data = [] if isinstance(self.data, bytes) else [self.data]
        return data + [buffer for buffer, _ in self.buffers]


class Recipes:
    """The recipes of a pool."""

    def __init__(self) -> None:
        self._n = 0
        self._shared: dict[tuple[int, int], SharedBuffer] = {}  # by address and size
        self._made: OrderedDict[int, tuple[Streamer[Any], Recipe]] = OrderedDict()  # by id

    def get(self, streamer: Streamer[Any]) -> Recipe:
        """Return the recipe of a stream."""
        known = self._made.get(id(streamer))
        if known is None:
            known = self._made[id(streamer)] = streamer, self._make(streamer)
            if len(self._made) > MAX_RECIPES:
                self._made.popitem(last=False)
        return known[1]

    def close(self) -> None:
        """Give up the shared memory; workers that have mapped it keep it."""
        self._made.clear()
        self._shared.clear()

    def _make(self, streamer: Streamer[Any]) -> Recipe:
        large: list[pickle.PickleBuffer] = []

        def keep_in_pickle(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < SHARED_BYTES:
                return True
            large.append(buffer)
            return False

        try:
            data: bytes = cloudpickle.dumps(streamer, 5, buffer_callback=keep_in_pickle)
        except Exception as error:
            raise PescadorError(
                f"{streamer!r} cannot be sent to a worker process: {type(error).__name__}: {error}. A recipe "
                "must be picklable: open files, connections, locks and iterators inside the generator "
                "function, not in its arguments, or use backend='thread'"
            ) from error
        buffers = [(self._share(buffer), buffer.raw().readonly) for buffer in large]
        number = self._next_number()
        if len(data) <= INLINE_BYTES:
            return Recipe(number, data, buffers)
        return Recipe(number, SharedBuffer(self._next_number(), memoryview(data), None), buffers)

    def _share(self, buffer: pickle.PickleBuffer) -> SharedBuffer:
        raw = buffer.raw()
        key = segment.address(raw), raw.nbytes
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = SharedBuffer(self._next_number(), raw, buffer)
        return shared

    def _next_number(self) -> int:
        self._n += 1
        return self._n


class Buffers:
    """The buffers that a worker has, and what it makes of them."""

    def __init__(self) -> None:
        self._memory: dict[int, memoryview] = {}

    def add(self, number: int, n_bytes: int, fd: int) -> None:
        """Map a buffer. Closes `fd`."""
        try:
            self._memory[number] = memoryview(segment.adopt(fd, n_bytes, private=True))  # type: ignore[arg-type]
        finally:
            os.close(fd)

    def load(self, data: bytes | int, places: list[tuple[int, bool]]) -> Streamer[Any]:
        """Return the stream of a recipe."""
        buffers = []
        for number, readonly in places:
            memory = self._memory[number]
            buffers.append(memory.toreadonly() if readonly else memory)
        pickled: Any = data if isinstance(data, bytes) else self._memory.pop(data)
        return pickle.loads(pickled, buffers=buffers)  # type: ignore[no-any-return]
