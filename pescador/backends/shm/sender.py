"""The worker's half: it owns the ring, and puts items there.

The ring is made when the first large item comes, sized for items like that one, and replaced by a larger one
should the items grow. A ring that is no longer written to lives for as long as something refers to it.

A record that comes back is *spare*: the next item of its size takes it, the last one first, because its
memory is most likely still in the caches of the processor. Going round the whole ring would miss them each
time, and on some machines writing 64 kB takes three times as long then. When no free place is left, all spare
records are given up.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from ...exceptions import PescadorError
from ..protocol import messages
from ..protocol.connection import Connection
from ..protocol.messages import NOWHERE, AnyExtent, Extent, Record
from ..protocol.transport import Sender
from ..system import shared_memory
from ..system.leases import Leases
from ..system.limits import free_memory
from ..system.shared_memory import ALIGNMENT, Bytes
from .ring import Allocator

__all__ = ["MAX_RING_BYTES", "MIN_RING_BYTES", "RING_ITEMS", "RingSender"]

# A ring holds so many items like the one it was made for, within these bounds.
RING_ITEMS = 8
MIN_RING_BYTES = 1 << 24
MAX_RING_BYTES = 1 << 28

# It takes this part of the memory that is free at most: generators need some, too, and so do other workers.
FREE_SHARE = 8

REMEDY = "Choose a smaller ring (ring_bytes), fewer workers, or give the container or job more memory"


class RingSender(Sender):
    """The worker's half: owns the ring."""

    def __init__(self, connection: Connection, ring_bytes: int | None) -> None:
        super().__init__(connection)
        self._n_segments = 0
        self._fixed = ring_bytes is not None
        self._number = 0  # of the ring's segment; 0: there is none yet
        self._ring: Bytes = np.empty(0, np.uint8)
        self._allocators = {0: Allocator(0)}  # of the ring, and of earlier ones that are still in use
        self._ring_bytes = ring_bytes
        self._address = 0  # of the ring
        # Arrays of the generator are given out, by offset, until they are sent, and shared after that:
        # they have two users then, and are free when both have let go.
        self._shared: set[AnyExtent] = set()
        self._leases = Leases()  # of the generator
        self._lent: dict[int, Record] = {}  # of the ring, by offset
        self._spare: dict[int, list[Record]] = {}  # those that came back, by size

    def prepare(self) -> None:
        if self._ring_bytes is not None and not self._number:
            self._make_ring(self._ring_bytes)

    def allocate(self, n_bytes: int) -> Record | None:
        record = self._take(n_bytes)
        if record is None and n_bytes > len(self._ring):
            return self.allocate_apart(n_bytes)
        return record

    def _take(self, n_bytes: int) -> Record | None:
        """Return a record of the ring, if there is room."""
        if self._leases.ended:
            self._collect()
        spare = self._spare.get(n_bytes)
        record = spare.pop() if spare else self._place(n_bytes)
        if record is not None:
            self._lent[record.offset] = record
        return record

    def allocate_apart(self, n_bytes: int) -> Record:
        number, memory = self._make_segment(n_bytes, is_ring=False)
        return Record(Extent(number, 0, n_bytes), memory)

    def _place(self, n_bytes: int) -> Record | None:
        """Return a record at a free place."""
        if not self._fixed and RING_ITEMS // 2 * n_bytes > len(self._ring):
            self._grow(n_bytes)
        if n_bytes > len(self._ring):
            return None
        offset = self._allocators[self._number].allocate(n_bytes)
        if offset is None and self._spare:
            self._give_up_spare()
            offset = self._allocators[self._number].allocate(n_bytes)
        if offset is None:
            return None
        return Record(Extent(self._number, offset, n_bytes), self._ring[offset : offset + n_bytes])

    def _give_up_spare(self) -> None:
        for record in chain.from_iterable(self._spare.values()):
            self._allocators[self._number].free(record.offset)
        self._spare.clear()

    def free(self, extents: Iterable[AnyExtent]) -> None:
        for extent in extents:
            number, offset, _ = extent
            if self._shared and extent in self._shared:
                self._shared.remove(extent)
            elif number == self._number:
                record = self._lent.pop(offset)
                try:
                    self._spare[record.n_bytes].append(record)
                except KeyError:
                    self._spare[record.n_bytes] = [record]
            else:
                self._allocators[number].free(offset)
                if not self._allocators[number]:
                    self._drop(number)

    def allocate_array(self, n_bytes: int) -> Bytes | None:
        try:
            record = self._take(n_bytes)
        except PescadorError:  # there is no shared memory for a ring
            return None
        if record is None:
            return None
        self.given_out[record.offset] = record.extent
        return self._leases.lend(self._ring.base, record.offset, n_bytes, record.extent)

    def give(self, array: Any) -> Extent:
        flags = array.flags
        extent = self.given_out.get(array.__array_interface__["data"][0] - self._address)
        if extent is None or array.nbytes != extent.n_bytes or not flags.forc:
            return NOWHERE
        del self.given_out[extent.offset]
        self._shared.add(extent)
        return extent

    def has_room_for(self, extents: Iterable[Extent]) -> bool:
        sizes = [n_bytes for number, _, n_bytes in extents if number == self._number]
        if RING_ITEMS // 2 * sum(sizes) > len(self._ring):
            return True  # for so few items, to copy one costs less than to make none while they are used
        records = [self._take(n_bytes) for n_bytes in sizes]
        self.free(record.extent for record in records if record)
        return all(records)

    def _collect(self) -> None:
        extents: list[Extent] = self._leases.take_ended()
        for extent in extents:
            if self.given_out.get(extent.offset) is extent:  # it was not sent
                del self.given_out[extent.offset]
            self.free([extent])

    def _grow(self, n_bytes: int) -> None:
        """Replace the ring by one that is large enough for items of this size, if there is memory."""
        size = max(MIN_RING_BYTES, min(RING_ITEMS * (n_bytes + ALIGNMENT), MAX_RING_BYTES))
        size = min(size, free_memory().n_bytes // FREE_SHARE)
        size -= size % 4096
        while size > len(self._ring):
            try:
                self._make_ring(size)
            except PescadorError:  # somebody else was faster; what there is must do
                if size // 2 < n_bytes and not self._number:
                    raise
                size -= size // 2 + size // 2 % 4096
            else:
                return

    def _make_ring(self, n_bytes: int) -> None:
        earlier = self._number
        number, ring = self._make_segment(n_bytes, is_ring=True)
        self._give_up_spare()
        self._lent.clear()
        self._number, self._ring = number, ring
        self._allocators[self._number] = Allocator(n_bytes)
        self._address = self._ring.__array_interface__["data"][0]
        self.given_out.clear()  # in the ring before; they are copied when they are sent
        if not self._allocators[earlier]:
            self._drop(earlier)

    def _drop(self, number: int) -> None:
        del self._allocators[number]
        if number:
            self.connection.send_reading(messages.NO_SEGMENT, pickle.dumps(number))

    def _make_segment(self, n_bytes: int, is_ring: bool) -> tuple[int, Bytes]:
        handle, memory = shared_memory.create(n_bytes, REMEDY)
        try:
            self._n_segments += 1
            self.connection.send_reading(
                messages.SEGMENT, pickle.dumps((self._n_segments, n_bytes, is_ring)), handles=[handle]
            )
        finally:
            shared_memory.close_all([handle])
        return self._n_segments, memory
