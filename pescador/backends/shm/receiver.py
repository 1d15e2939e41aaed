"""The consumer's half: views of the ring, under leases.

A view is a *lease* of its record: the record is released, and given back to the worker, when the last array
that refers to it is gone (see :mod:`pescador.backends.system.leases`).
"""

from __future__ import annotations

import contextlib
import pickle
import time

import numpy as np

from ...exceptions import WorkerError
from ..protocol import messages
from ..protocol.connection import Connection, Message
from ..protocol.messages import AnyExtent
from ..protocol.transport import Receiver
from ..system import shared_memory
from ..system.leases import Leases
from ..system.polling import POLLIN, POLLOUT, new_poll
from ..system.shared_memory import ALIGNMENT, Bytes, Handle

__all__ = ["RingReceiver"]

# To look which leases have ended takes time, so it is done when so many may have, and not for each item.
COLLECT = 16


class RingReceiver(Receiver):
    """The consumer's half: views of the ring, and leases on them."""

    def __init__(self, connection: Connection, death: int | None) -> None:
        super().__init__(connection)
        self._rings: dict[int, Bytes] = {}
        self._leases = Leases()
        self._own: dict[int, Bytes] = {}  # segments of one record
        self._n_leased = 0  # bytes
        self._poll = new_poll()
        self._poll.register(connection.socket, POLLIN)
        if death is not None:
            self._poll.register(death, POLLIN)

    def receive(self) -> Message | None:
        return self.connection.receive(block=False)

    def wait(self, timeout: int) -> bool:
        if not self.connection.has_unsent:
            return bool(self._poll.poll(timeout))
        deadline = time.monotonic() + timeout / 1000
        try:
            while self.connection.has_unsent:
                self._poll.modify(self.connection.socket, POLLIN | POLLOUT)
                found = self._poll.poll(max(0, deadline - time.monotonic()) * 1000)
                if not found or any(events & ~POLLOUT for _, events in found):
                    return bool(found)
                with contextlib.suppress(ConnectionError):  # it is gone, which the next look finds
                    self.connection.flush()
        finally:
            self._poll.modify(self.connection.socket, POLLIN)
        return bool(self._poll.poll(max(0, deadline - time.monotonic()) * 1000))

    def obey(self, message: bytes | memoryview, handles: list[Handle]) -> None:
        kind = message[:1]
        if kind == messages.SEGMENT:
            self._adopt(handles[0], *pickle.loads(message[1:]))
        elif kind == messages.NO_SEGMENT:
            del self._rings[pickle.loads(message[1:])]
        else:
            super().obey(message, handles)

    def _adopt(self, handle: Handle, number: int, n_bytes: int, is_ring: bool) -> None:
        """Map a segment that the worker has made."""
        memory = shared_memory.adopt(handle, n_bytes)
        if is_ring:
            self._rings[number] = memory
            self.release_bound = n_bytes // 8
        else:
            self._own[number] = memory

    def view(self, extent: AnyExtent) -> Bytes:
        number, offset, n_bytes = extent
        own = self._own.pop(number, None)
        if own is not None:  # it is the worker's no longer, so it need not be given back
            return self._leases.lend(own.base, 0, n_bytes, None)
        ring = self._rings.get(number)
        if ring is None or offset + n_bytes > len(ring) or offset % ALIGNMENT:
            raise WorkerError(f"a worker sent an item that is nowhere: {extent}")
        if len(self._leases.ended) >= COLLECT or self._n_leased + n_bytes > len(ring) // 2:
            self.collect()
        if self._n_leased + n_bytes > len(ring) // 2:
            copy = shared_memory.private(n_bytes)
            np.copyto(copy, ring[offset : offset + n_bytes])
            self.release(extent)
            return copy
        self._n_leased += n_bytes
        return self._leases.lend(ring.base, offset, n_bytes, extent)

    def release(self, extent: AnyExtent) -> None:
        if self._own.pop(extent[0], None) is None:
            super().release(extent)

    def take_released(self) -> list[AnyExtent]:
        self.collect()
        return super().take_released()

    def collect(self) -> None:
        for extent in self._leases.take_ended():
            self._n_leased -= extent[2]
            self.n_released += extent[2]
            self._released.append(extent)

    def close(self) -> None:
        self._leases.close()
        self._rings.clear()
        self._own.clear()
