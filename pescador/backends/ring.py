"""The ring buffer: where a worker puts large items, and the leases of a consumer.

A ring is one segment of shared memory. Only the worker allocates in it and writes to it; the consumer
reads, and says which records it no longer needs::

    worker                         ring                               consumer
    allocate ──▶ │ free │ held │ sent │ sent │ being written │ free │
    send     ──▶ (offset, size) through a socket                  ──▶ view, under a lease
    free     ◀── (offset) through a socket                        ◀── lease ended

Layout: records of any length, at multiples of 64 bytes, and nothing else. No header, no counter and
no flag lies in shared memory. That a record is complete, or no longer needed, travels as a message
through a socket, and the system calls that carry it are the memory barrier; so there is no order of
plain stores on which anything would depend.

A place that is given back is kept for the next record of that size, the last one first, because its
memory is most likely still in the caches of the processor: going round the whole ring would miss them
each time, and writing a record of 64 kB takes three times as long then. Where there is no such place, a
record is put at the first free one behind the last (*next fit*), and when there is none of those, all
places that are kept are free again. As leases may end in any order, what is held longer is stepped over.
The worker keeps the list of occupied places in its own memory. When nothing fits it waits; should the
consumer in turn wait for the worker, the item goes into a segment of its own instead (see :mod:`.shm`),
so neither waits for ever.

Invariants: occupied places do not overlap; a place is occupied from `allocate` to `free`; `free` is
called once for each. What is held in a ring when its worker has died stays valid for as long as it is
held: the memory is mapped while any array refers to it.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left, insort
from collections import defaultdict, deque
from typing import Any

import numpy as np

from .segment import Bytes

__all__ = ["ALIGNMENT", "Allocator", "Leases"]

ALIGNMENT = 64  # bytes: a cache line, and what vector instructions like


class Allocator:
    """Allocation of places in a ring of `n_bytes` bytes."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._starts: list[int] = []  # of occupied and kept places, sorted
        self._ends: dict[int, int] = {}
        self._next = 0  # where the last record ended
        self._kept: defaultdict[int, list[int]] = defaultdict(list)  # by size
        self._used: set[int] = set()

    def __len__(self) -> int:
        return len(self._used)

    def allocate(self, n_bytes: int) -> int | None:
        """Return the offset of `n_bytes` free bytes, None if there is no such place."""
        size = -(-max(n_bytes, 1) // ALIGNMENT) * ALIGNMENT
        kept = self._kept[size]
        offset = kept.pop() if kept else self._place(size)
        if offset is None and len(self._starts) > len(self._used):
            self._give_up_kept()
            offset = self._place(size)
        if offset is not None:
            self._used.add(offset)
        return offset

    def _place(self, size: int) -> int | None:
        offset = self._find(self._next, self.n_bytes, size)
        if offset is None:
            offset = self._find(0, min(self._next + size, self.n_bytes), size)
            if offset is None:
                return None
        insort(self._starts, offset)
        self._ends[offset] = self._next = offset + size
        return offset

    def _find(self, offset: int, end: int, size: int) -> int | None:
        starts, ends = self._starts, self._ends
        place = bisect_left(starts, offset)
        if place and ends[starts[place - 1]] > offset:
            offset = ends[starts[place - 1]]
        while offset + size <= end:
            if place == len(starts) or offset + size <= starts[place]:
                return offset
            offset = ends[starts[place]]
            place += 1
        return None

    def free(self, offset: int) -> None:
        """Give back a place."""
        self._used.remove(offset)
        self._kept[self._ends[offset] - offset].append(offset)

    def _give_up_kept(self) -> None:
        self._kept.clear()
        self._starts = [start for start in self._starts if start in self._used]
        self._ends = {start: self._ends[start] for start in self._starts}


class Leases:
    """Makes arrays over records of some shared memory, and tells when the last user of one is gone.

    The base of such an array is a *lease*, a ctypes array over the memory. Views of the array keep it in
    turn, however many they are and whatever their type, shape or class, because NumPy follows bases only
    as far as they are arrays.

    Parameters
    ----------
    memory : array of uint8
        The segment; mapped for as long as there are leases.
    ended : deque
        Where records are put whose leases have ended, by any thread, at any moment: appending to a deque
        is atomic and takes no lock.
    """

    def __init__(self, memory: Bytes, ended: deque[Any]) -> None:
        self._memory = memory

        def end(lease: Any) -> None:
            ended.append(lease.record)

        kind: Any = ctypes.c_uint8 * len(memory)
        self._kind: Any = type("Lease", (kind,), {"__slots__": ("record",), "__del__": end})

    def __call__(self, offset: int, n_bytes: int, record: Any) -> Bytes:
        """Return an array over a part of the memory; `record` is in `ended` when all its views are gone."""
        lease = self._kind.from_buffer(self._memory)
        lease.record = record
        return np.ndarray((n_bytes,), np.uint8, lease, offset)
