"""Replacing workers that died.

What a worker had sent stays valid. Its streams open again on another one, where they stood after that: those
whose state is known from a snapshot, others by making again what they gave. Nothing is lost or doubled, and
whoever waits goes on waiting.

A *place* is a stream and the number of its item that was being made. One that ends two workers would end all
of them: its stream raises, and only the others go on.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ...exceptions import PescadorError, WorkerError
from ...opening import State
from ..processes.process import Process
from ..processes.stacks import Report
from .inbox import Inbox
from .remote_stream import Failure, RemoteStream
from .worker_handle import WorkerState

__all__ = ["Replaceable", "Restarts"]

logger = logging.getLogger("pescador")

LOOK_SECONDS = 0.01


class Place(NamedTuple):
    """What a worker was making when it died."""

    stream: int
    item: int


class Restarts:
    """How often the workers of a pool may be replaced, and what has become of those that were.

    Parameters
    ----------
    bound : int
        How often.
    start : callable
        Starts a worker in the place of another one, and returns it; None if the pool was closed. Raises
        PescadorError.
    """

    def __init__(self, bound: int, start: Callable[[Replaceable], Replaceable | None]) -> None:
        self.bound = bound
        self._start = start
        self._n = 0
        self._retired: list[Replaceable] = []
        self._ended_at: set[Place] = set()
        self._is_closing = False
        self._lock = threading.RLock()  # reentrant, for a signal handler may close the pool

    def replace(self, old: Replaceable, cause: str) -> bool:
        """Have another worker take the place of one that has ended; return whether one did.

        Called by the thread that reads the messages of the worker, which has taken all that came.
        """
        # Who closes the pool holds the lock, and waits for this thread to leave.
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            if self._is_closing:
                return False
        try:
            if self._is_closing or self._n >= self.bound:
                return old.successor is not None
            return old.successor is not None or self._replace(old, cause)
        finally:
            self._lock.release()

    def _replace(self, old: Replaceable, cause: str) -> bool:
        place = Place(*old.place())
        is_poison = place in self._ended_at
        if place.stream:
            self._ended_at.add(place)
        try:
            new = self._start(old)
        except PescadorError as error:
            logger.warning("%s It cannot be replaced: %s", cause, error)
            return False
        if new is None:
            return False
        self._n += 1
        logger.warning(
            "%s It is replaced by worker process %d (restart %d of max_restarts=%d)",
            cause,
            new.process.pid,
            self._n,
            self.bound,
        )
        stream = old.streams.get(place.stream)
        if is_poison and stream is not None:  # it gives the items before that one, and then raises
            recipe, seed, _ = stream.opening
            stream.opening = (recipe, seed, place.item)
            message = f"item {place.item} of {stream.name} has ended two workers, and is not tried again. "
            stream.failure = Failure(WorkerError(f"{message}The last one: {cause}"))
        new.continue_statistics(old)
        old.successor = new
        self._retired.append(old)
        old.settle(WorkerState.REPLACED, PescadorError)
        if old.state is WorkerState.REPLACED:  # and the pool was not closed meanwhile
            old.retire()
        return True

    @contextmanager
    def closing(self) -> Iterator[None]:
        """While this is open, no other thread replaces a worker; after that, all that were are released."""
        self._is_closing = True
        with self._lock:
            try:
                yield
            finally:
                for old in self._retired:
                    old.close()
                self._retired.clear()


class Replaceable(Inbox):
    """A worker process that another one may replace.

    Attributes
    ----------
    successor : Replaceable or None
        The other one.
    """

    def __init__(
        self, stall_timeout: float | None, process: Process, report: Report | None, restarts: Restarts | None
    ) -> None:
        super().__init__(stall_timeout)
        self.process = process
        self.successor: Replaceable | None = None
        self._report = report
        self._restarts = restarts
        self._is_open = [True]
        self._left: set[int] = set()  # streams that have not taken all that came, once it is replaced

    def replace(self, cause: str) -> bool:
        # What was interrupted while it was read is lost, and nobody knows what else.
        return self._restarts is not None and not self.is_cut_off() and self._restarts.replace(self, cause)

    def place(self) -> tuple[int, int]:
        """Return the number of the stream whose generator ran when the worker ended, and that of the item."""
        assert self._report is not None
        return self._report.place()

    def hand_over(self, stream: RemoteStream[Any]) -> None:
        successor = self.successor
        if successor is None or self.streams.pop(stream.number, None) is None:
            self.leave(stream)  # another thread was faster, or it was closed
            return
        successor.streams[stream.number] = stream
        stream.move(successor, lambda state, n_credits: successor.open_again(stream, state, n_credits))
        if stream.is_closed:  # meanwhile, and perhaps before it knew where it is now
            successor.forget(stream)
            successor.command("close", stream.number)

    def retire(self) -> None:
        """Hand all streams over to the successor, and end when what had come of them is taken."""
        streams = list(self.streams.values())
        self._left = {stream.number for stream in streams} | {0}
        for stream in streams:
            self.hand_over(stream)
        self._left.discard(0)
        self._close_if_unused()

    def leave(self, stream: RemoteStream[Any]) -> None:
        self._left.discard(stream.number)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._left and self.state is WorkerState.REPLACED:
            self._close()

    @abstractmethod
    def is_cut_off(self) -> bool:
        """Whether messages may have been lost here."""

    @abstractmethod
    def open_again(self, stream: RemoteStream[Any], state: State, n_credits: int) -> None:
        """Open a stream where it stood on a worker that this one replaces."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""

    @abstractmethod
    def _close(self) -> None:
        """Release what is held, unless it was."""
