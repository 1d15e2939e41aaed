"""Sending recipes to worker processes.

A recipe is pickled by cloudpickle, so lambdas, closures and functions of a script or notebook work.
Large buffers in it (the memory of arrays) go into one segment of shared memory, which every worker
maps copy-on-write: n workers over an array of 4 GB need 4 GB, and what one writes into it nobody else
sees.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

import cloudpickle

from ..core import Streamer
from ..exceptions import PescadorError
from . import segment
from .ring import ALIGNMENT

__all__ = ["Recipe", "load_recipe"]

# Buffers from this size on go into shared memory.
SHARED_BYTES = 1 << 16

# Pickles up to this size travel in the message itself.
INLINE_BYTES = 1 << 15


class Recipe:
    """A pickled stream.

    Attributes
    ----------
    data : bytes or None
        The pickle; None if it lies in the segment, too, after the buffers.
    places : list of (offset, n_bytes, readonly)
        Where in the segment the buffers are.
    n_bytes : int
        Size of the segment.
    fd : int or None
        The segment, if there is one.
    """

    def __init__(self, streamer: Streamer[Any]) -> None:
        buffers: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes >= SHARED_BYTES:
                buffers.append(raw)
                return False
            return True  # small: stays in the pickle

        try:
            data = cloudpickle.dumps(streamer, 5, buffer_callback=keep)
        except Exception as error:
            raise PescadorError(
                f"{streamer!r} cannot be sent to a worker process: {type(error).__name__}: {error}. A recipe "
                "must be picklable: open files, connections, locks and iterators inside the generator "
                "function, not in its arguments, or use backend='thread'"
            ) from error
        chunks = list(buffers)
        if len(data) > INLINE_BYTES:
            chunks.append(memoryview(data))
        self.places: list[tuple[int, int, bool]] = []
        end = 0
        for chunk in chunks:
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            self.places.append((offset, chunk.nbytes, chunk.readonly))
            end = offset + chunk.nbytes
        self.data = data if len(data) <= INLINE_BYTES else None
        self.n_bytes = end
        self.fd: int | None = None
        if chunks:
            self.fd, memory = segment.create(
                end,
                "It is for the large arrays of the recipe; have the generator load them itself, enlarge "
                "the shared memory (docker run --shm-size), or use backend='thread'",
            )
            for (offset, n_bytes, _), chunk in zip(self.places, chunks, strict=True):
                memory[offset : offset + n_bytes] = chunk.cast("B")

    def message(self) -> tuple[bytes | None, list[tuple[int, int, bool]], int]:
        """Return what :func:`load_recipe` needs besides the segment."""
        return self.data, self.places, self.n_bytes

    def close(self) -> None:
        """Give up the segment; workers that have mapped it keep it."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


def load_recipe(
    message: tuple[bytes | None, list[tuple[int, int, bool]], int], fd: int | None
) -> Streamer[Any]:
    """Return the stream of a recipe. Closes `fd`."""
    data, places, n_bytes = message
    buffers: list[memoryview] = []
    if fd is not None:
        try:
            memory = memoryview(segment.adopt(fd, n_bytes, private=True))  # type: ignore[arg-type]  # a buffer
        finally:
            os.close(fd)
        for offset, size, readonly in places:
            buffer = memory[offset : offset + size]
            buffers.append(buffer.toreadonly() if readonly else buffer)
    pickled: Any = buffers.pop() if data is None else data
    return pickle.loads(pickled, buffers=buffers)  # type: ignore[no-any-return]
