"""How records, the bodies of large items, get from a worker process to the consumer.

A transport has two halves: the worker puts records where its :class:`Sender` says, and sends messages
that refer to them; the consumer's :class:`Receiver` gives the memory of each, and keeps account of those
that are no longer used, of which the worker is told.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ...exceptions import WorkerError
from ..system.shared_memory import Bytes, Handle
from .connection import Connection, Message
from .messages import NOWHERE, AnyExtent, Extent, Record

__all__ = ["MAX_EXTENTS", "ConsumerRecords", "Receiver", "Sender", "Transport", "WorkerRecords"]

MAX_EXTENTS = 256  # that the worker is told of in one message


class WorkerRecords(ABC):
    """The records of a worker, as it sees them.

    Attributes
    ----------
    given_out : dict
        The arrays of :meth:`allocate_array` that were not sent yet.
    gives_from : float
        Arrays of an item that is larger may be given as they are, although they were not given out.
    small_bytes : int
        Items up to this size travel in the message. A larger one costs less as a record.
    pending_bytes : int
        So many bytes of small items are pending at most.
    budget : float
        So many bytes of records are under way at most, or one record.
    """

    small_bytes = 1 << 14
    pending_bytes = 1 << 15
    gives_from = math.inf
    budget = math.inf

    def __init__(self) -> None:
        self.given_out: dict[int, Extent] = {}
        self._under_way = 0  # bytes, where there is a budget

    def fits(self, n_bytes: int) -> bool:
        """Return whether so many bytes more may be under way."""
        return not self._under_way or self._under_way + n_bytes <= self.budget

    def allocate(self, n_bytes: int) -> Record | None:
        """Return memory for a record; None if there is no room."""
        return self.allocate_apart(n_bytes) if self.fits(n_bytes) else None

    @abstractmethod
    def allocate_apart(self, n_bytes: int) -> Record:
        """Return memory for a record where there is no room."""

    @abstractmethod
    def free(self, extents: Iterable[AnyExtent]) -> None:
        """Take back memory of records that the consumer no longer needs."""

    def prepare(self) -> None:
        """Reserve what can be reserved before the first item; raise PescadorError if it is not there."""

    def allocate_array(self, n_bytes: int) -> Bytes | None:
        """Return memory for an array of the generator, which is sent as it is; None if there is none."""
        return None

    def give(self, array: Any) -> Extent:
        """Return the record that an array is, and leave it to the consumer; NOWHERE if it is none."""
        return NOWHERE

    def has_room_for(self, extents: Iterable[Extent]) -> bool:
        """Return whether there is room for the arrays of one more item like the one with these records.

        If there is not, it is better to wait than to begin that item.
        """
        return True

    def close(self) -> None:
        """Release what is held."""


class Sender(WorkerRecords):
    """The worker's half of a transport that goes through a connection."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def send(self, message: list[bytes], extents: list[Extent]) -> None:
        """Send a message, given in parts, and its records; what finds no room is queued in the connection."""
        self.connection.send(*message)


class ConsumerRecords(ABC):
    """The records of a worker, as its consumer sees them.

    Attributes
    ----------
    n_released : int
        Bytes of records that were released and of which the worker was not told yet.
    release_bound : float
        How many of them there may be: a worker that waits for room should hear of it while there is
        still something to do here.
    """

    def __init__(self) -> None:
        self.n_released = 0
        self.release_bound = math.inf
        self._released: deque[AnyExtent] = deque()

    @abstractmethod
    def view(self, extent: AnyExtent) -> Bytes:
        """Return the memory of a record, which is released when it is no longer used."""

    def release(self, extent: AnyExtent) -> None:
        """Take note that a record is no longer needed."""
        self._released.append(extent)
        self.n_released += extent[2]

    def collect(self) -> None:
        """Release the records of which the last user is gone, if they were not yet."""

    def take_released(self) -> list[AnyExtent]:
        """Return records that were released and of which the worker was not told yet."""
        extents: list[AnyExtent] = []
        with contextlib.suppress(IndexError):  # another thread was faster
            extents.extend(self._released.popleft() for _ in range(min(len(self._released), MAX_EXTENTS)))
        n_bytes = sum(extent[2] for extent in extents)
        self.n_released -= n_bytes  # read only now, for another thread may have added to it
        return extents

    def close(self) -> None:
        """Release what is held."""


class Receiver(ConsumerRecords):
    """The consumer's half of a transport that goes through a connection."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    @abstractmethod
    def receive(self) -> Message | None:
        """Return a message and its handles if there is one; EOFError if there never will be."""

    @abstractmethod
    def wait(self, timeout: int) -> bool:
        """Wait for a message or the death of the worker, so many milliseconds; False if none came.

        What is queued for the worker is sent meanwhile, when there is room.
        """

    def obey(self, message: bytes | memoryview, handles: list[Handle]) -> None:
        """Obey a message from the other half; its handles are closed after that."""
        raise WorkerError(f"a worker sent a message of the unknown kind {message[:1]!r}")


class Transport(NamedTuple):
    """What makes the two halves of one worker's transport, each in the process to which it belongs."""

    make_sender: Callable[[Connection], Sender]
    """Called in the worker, to which it is pickled."""
    make_receiver: Callable[[Connection, int | None], Receiver]
    """Called in the consumer, with its end of the connection and the worker's pidfd, or None."""
