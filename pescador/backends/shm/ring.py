"""The ring buffer: where a worker puts large items.

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

What a consumer gets is a view, under a lease (see :mod:`..system.leases`).

A record for which there is no spare one (see :mod:`.sender`) is put at the first free place behind the last
(*next fit*). As leases may end in any order, what is held longer is stepped over. The worker keeps the list
of occupied places in its own memory. When nothing fits it waits; should the consumer in turn wait for the
worker, the item goes into a segment of its own instead, so neither waits for ever.

Invariants: occupied places do not overlap; a place is occupied from `allocate` to `free`; `free` is
called once for each. What is held in a ring when its worker has died stays valid for as long as it is
held: the memory is mapped while any array refers to it.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from ..system.shared_memory import ALIGNMENT

__all__ = ["Allocator"]


class Allocator:
    """Allocation of places in a ring of `n_bytes` bytes."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._starts: list[int] = []  # of occupied places, sorted
        self._ends: dict[int, int] = {}
        self._next = 0  # where the last record ended

    def __len__(self) -> int:
        return len(self._starts)

    def allocate(self, n_bytes: int) -> int | None:
        """Return the offset of `n_bytes` free bytes, None if there is no such place."""
        size = -(-max(n_bytes, 1) // ALIGNMENT) * ALIGNMENT
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
        del self._ends[offset]
        del self._starts[bisect_left(self._starts, offset)]
