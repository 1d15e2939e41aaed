"""Large items: arrays of bytes that Ray puts into the object store.

A record is known by a number. The worker counts what is under way, from the moment that it is made until the
consumer has taken it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...exceptions import WorkerError
from ..protocol.messages import NOWHERE, AnyExtent, Extent, Record
from ..protocol.transport import ConsumerRecords, WorkerRecords
from ..system.shared_memory import Bytes, keep_freed_memory, private

__all__ = ["BUDGET", "ActorRecords", "ReceivedRecords"]

# How many bytes of records one worker may have under way; an item that is larger goes alone.
BUDGET = 1 << 25


class ActorRecords(WorkerRecords):
    """The worker's side. Used by the loop's thread, but for :meth:`take`."""

    pending_bytes = 1 << 18
    gives_from = WorkerRecords.small_bytes
    budget = BUDGET

    def __init__(self) -> None:
        super().__init__()
        self._n_records = 0
        self._memory: dict[int, Bytes] = {}  # what was not sent yet

    def allocate_apart(self, n_bytes: int) -> Record:
        memory = private(n_bytes)
        return Record(self._add(memory), memory)

    def give(self, array: npt.NDArray[Any]) -> Extent:
        owner = array if array.base is None else array.base
        if array.nbytes <= self.small_bytes or not array.flags.forc:
            return NOWHERE
        if type(owner) is not np.ndarray or not owner.flags.owndata:  # nobody can tell who else writes to it
            return NOWHERE
        return self._add(array.reshape(-1, order="A").view(np.uint8))

    def _add(self, memory: Bytes) -> Extent:
        self._n_records += 1
        self._memory[self._n_records] = memory
        self._under_way += memory.nbytes
        return Extent(self._n_records, 0, memory.nbytes)

    def has_room_for(self, extents: Iterable[Extent]) -> bool:
        return self.fits(sum(extent.n_bytes for extent in extents))

    def take(self, number: int) -> Bytes:
        """Return the memory of a record, which is about to be sent."""
        return self._memory.pop(number)

    def free(self, extents: Iterable[AnyExtent]) -> None:
        for number, _, n_bytes in extents:
            self._memory.pop(number, None)  # of an item that could not be sent
            self._under_way -= n_bytes


class ReceivedRecords(ConsumerRecords):
    """The consumer's side: the reading thread adds records, and those that take items take them."""

    def __init__(self) -> None:
        super().__init__()
        keep_freed_memory()
        self.release_bound = BUDGET // 8
        self._memory: dict[int, Bytes] = {}

    def add(self, number: int, buffer: pickle.PickleBuffer) -> None:
        """Take a copy of a record."""
        memory = np.frombuffer(memoryview(buffer), np.uint8)
        mine = private(memory.nbytes)
        np.copyto(mine, memory)
        self._memory[number] = mine

    def view(self, extent: AnyExtent) -> Bytes:
        memory = self._memory.pop(extent[0], None)
        if memory is None or memory.nbytes != extent[2]:
            raise WorkerError(f"a worker sent an item that is nowhere: {extent}")
        super().release(extent)
        return memory

    def release(self, extent: AnyExtent) -> None:
        self._memory.pop(extent[0], None)
        super().release(extent)

    def close(self) -> None:
        self._memory.clear()
