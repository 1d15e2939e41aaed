"""Streams on workers, seen from the consumer.

For every open stream there is a :class:`RemoteStream`: a queue of what the worker sent, and an account of
what it may still send. A worker may produce as many items as it has *credits* for. It gets `window`
credits when the stream opens, and the consumer returns them as it takes items, half a window at a time.

Any thread may use a stream, one at a time. All streams of one worker are fed by whichever thread
waits first (see :meth:`WorkerHandle.wait`); a queue is a deque, whose operations are atomic, so taking
an item that is there needs no lock. ``close()`` takes no lock at all: the garbage collector may call it
anywhere, also where this thread already holds one.

A worker *stalls* when a consumer waits and nothing comes for `stall_timeout` seconds, for any of its
streams: it runs one generator at a time, so the one that ran is stuck. It is given up, as one that died.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import traceback
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ...core import Streamer
from ...exceptions import DataError, PescadorError, WorkerError
from ...seeding import Seed
from ..base import Pool, Stream, StreamStats, WorkerStats
from ..protocol.errors import Unloadable, describe_error

__all__ = ["CLOSED", "End", "Failure", "RemoteStream", "WorkerHandle", "WorkerPool", "in_slices"]

T = TypeVar("T")

# Items that a stream without a `prefetch` may be ahead, divided by how many streams its worker has.
DEFAULT_WINDOW = 16
MIN_WINDOW = 4

MAX_WINDOW = 1024
WINDOW_BYTES = 1 << 23
"""Small items get a larger window: as many as fit in so many bytes, divided likewise."""


_NOTHING = object()


# Seconds by which a wait may end late. If it is more, this process did not run (Ctrl-Z, or a machine that
# was suspended), nor did the worker, perhaps: then the wait begins anew.
LATE_SECONDS = 1.0

# How long a Ctrl-C may go unheard.
CTRL_C_SECONDS = 1.0


def in_slices(wait: Callable[[float], bool], timeout: float | None) -> bool:
    """Wait until `wait`, which takes seconds, has been successful; return whether it was, in time.

    Not in one go, for a Ctrl-C that comes just before a system call does not interrupt it. A condition that
    is notified just as a slice is over says that it was not, so `wait` has to look at what it is about.
    """
    deadline = math.inf if timeout is None else time.perf_counter() + timeout
    while (left := deadline - time.perf_counter()) > 0:
        if wait(min(left, CTRL_C_SECONDS)):
            return True
    return False


CLOSED = "the ParallelStreamer was closed while this stream was open"


class End:
    """In a queue: the stream ended."""


class Failure:
    """In a queue: the stream raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class RemoteStream(Generic[T]):
    """The consumer's end of one open stream."""

    def __init__(
        self, worker: WorkerHandle, number: int, prefetch: int | None, streamer: Streamer[T]
    ) -> None:
        self.number = number
        self.streamer = streamer
        self.queue: deque[Any] = deque()
        self._worker = worker
        self._window = self._default_window() if prefetch is None else prefetch
        self.adapts = prefetch is None
        self._taken = 0  # items taken whose credits were not returned yet
        self._returned = 0  # the others
        # Counted here, where one thread at a time counts, and not for all streams of a worker.
        self.waited = 0.0  # seconds
        self.n_bytes = 0  # that were delivered
        self._closed = False

    @property
    def name(self) -> str:
        """What runs here, for messages."""
        return repr(self.streamer)

    @property
    def is_closed(self) -> bool:
        """Whether nobody takes items from it any more."""
        return self._closed

    @property
    def window(self) -> int:
        """How many items the stream may be ahead."""
        return self._window

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            entry = self.queue.popleft() if self.queue else _NOTHING
        except IndexError:  # another thread was faster
            entry = _NOTHING
        if entry is _NOTHING:  # not above, or all that is raised there would seem to come from the IndexError
            entry = self._wait()
        if entry is End:
            self._finish()
            raise StopIteration
        if type(entry) is Failure:
            self._finish()
            raise entry.error
        worker = self._worker
        try:
            item: T = worker.deliver(entry, self)
        except Unloadable as error:
            entry = None  # or its memory would be kept with what is raised here
            raise self._unloadable(error) from error.error
        self._taken += 1
        if 2 * self._taken >= self._window:
            self.return_credits()
        return item

    def _unloadable(self, unloadable: Unloadable) -> DataError:
        """End the stream because of an item; return what to raise."""
        self.close()
        error = unloadable.error
        # Or they would keep the item's memory, which is the worker's, for as long as the error is kept.
        traceback.clear_frames(unloadable.__traceback__)
        traceback.clear_frames(error.__traceback__)
        what = f"an item ({unloadable.kind})" if unloadable.kind else "an item"
        return DataError(
            f"{what} of {self.name} cannot be loaded: {describe_error(error)}. What can be pickled need not "
            "load again in another process; yield arrays, or use backend='thread'"
        )

    def _wait(self) -> Any:
        while True:
            if self._closed:
                return End
            if not self._worker.is_ours():
                raise PescadorError(
                    "this iterator belongs to the process from which this one was forked; iterate over the "
                    "ParallelStreamer again, which opens workers for this process"
                )
            self._worker.wait(self)
            try:
                return self.queue.popleft()
            except IndexError:  # it was closed, or another thread took the item
                continue

    def return_credits(self) -> None:
        """Let the worker produce as many items as were taken."""
        taken, self._taken = self._taken, 0
        self._returned += taken
        if taken and not self._closed:
            self._worker.credit(self.number, taken)

    def allow(self, prefetch: int | None) -> None:
        """Let the stream be ahead by so many items, if those are more than now; None leaves it to us."""
        self.adapts = prefetch is None
        self._enlarge(self._default_window() if prefetch is None else prefetch)

    def _default_window(self) -> int:
        return max(MIN_WINDOW, DEFAULT_WINDOW // (len(self._worker.streams) or 1))

    def widen(self, item_bytes: int) -> None:
        """Enlarge the window for items of this size, if it was left to us."""
        if self.adapts:
            self.adapts = False
            share = WINDOW_BYTES // max(len(self._worker.streams), 1)
            self._enlarge(min(MAX_WINDOW, share // max(item_bytes, 1)))

    def _enlarge(self, window: int) -> None:
        if window > self._window and not self._closed:
            extra, self._window = window - self._window, window
            self._worker.credit(self.number, extra)

    @property
    def n_items(self) -> int:
        """How many items were delivered."""
        return self._returned + self._taken

    def stats(self) -> StreamStats:
        """Return what was delivered so far."""
        return StreamStats(self.name, self.n_items, self.waited, len(self.queue))

    def _finish(self) -> None:
        self._closed = True
        self._worker.forget(self)

    def close(self) -> None:
        """Close the stream on its worker, and drop what it produced ahead."""
        if self._closed:
            return
        self._closed = True
        self._worker.forget(self)
        self._worker.command("close", self.number)
        self.drop()

    def drop(self) -> None:
        """Drop what was produced ahead."""
        while self.queue:
            try:
                entry = self.queue.popleft()
            except IndexError:
                break
            self._worker.discard(entry)


_handles: weakref.WeakSet[WorkerHandle] = weakref.WeakSet()


def _drop_what_is_not_ours() -> None:
    """Empty the queues in a process that was forked: the memory of their items is the other process's."""
    for handle in list(_handles):
        for stream in list(handle.streams.values()):
            stream.queue.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_what_is_not_ours)


class WorkerHandle(ABC):
    """The consumer's side of one worker."""

    def __init__(self, stall_timeout: float | None) -> None:
        self._consumer = os.getpid()
        self.stall_timeout = stall_timeout
        self.stalled = ""  # what to tell, if it did
        self.closed = ""  # what to tell, once the pool is closed
        self.streams: dict[int, RemoteStream[Any]] = {}
        _handles.add(self)
        self.statistics = WorkerStats()  # of streams that were closed, besides what the worker says
        # Items, bytes and seconds of others that were closed; the garbage collector may close a stream.
        self._closed_counts: deque[tuple[int, int, float]] = deque()
        self._changed = threading.Condition()
        self._someone_reads = False
        self._n_waiting = 0  # threads, besides the one that reads

    def is_ours(self) -> bool:
        """Whether this process opened the worker. One that was forked from it leaves the worker alone."""
        return self._consumer == os.getpid()

    @abstractmethod
    def command(self, name: str, *arguments: Any) -> None:
        """Send a command to the worker; does nothing if it is gone."""

    def credit(self, number: int, n_items: int) -> None:
        """Let a stream produce so many items more."""
        self.command("credit", number, n_items)

    @abstractmethod
    def read(self, timeout: float | None, number: int) -> bool:
        """Wait until something came from the worker, and put it into the queues.

        If the worker is dead, put a Failure into every queue. Return False if nothing came in so many
        seconds. Until something is there of the stream of that `number` (0: of any), the worker may keep
        what it has of others, to send all of it together.
        """

    def ring(self, number: int) -> None:
        """Have the worker send what it has of a stream (0: of any), even if a generator is running."""

    @abstractmethod
    def end_stalled(self) -> tuple[int, str, str]:
        """End the worker, if that can be done, and put what it still delivered into the queues.

        Returns
        -------
        number : int
            Of the stream whose generator ran; 0 if none did.
        worker, words : str
            For the error: which worker it is, and what became of it, with its stack.
        """

    def deliver(self, entry: Any, stream: RemoteStream[Any]) -> Any:
        """Turn an entry of the queue of a stream into an item."""
        return entry

    def discard(self, entry: Any) -> None:
        """Drop an entry of a queue that nobody will take."""

    def open(self, stream: RemoteStream[Any], recipe: Any, seed: Seed, max_iter: int | None) -> None:
        """Start a stream that feeds `stream`."""
        self.streams[stream.number] = stream
        if self.stalled:
            stream.queue.append(Failure(WorkerError(self.stalled)))
        elif self.closed:  # by another thread, which may have missed this stream
            stream.queue.append(Failure(PescadorError(self.closed)))
        else:
            self.command("open", stream.number, recipe, seed, max_iter, stream.window)

    def forget(self, stream: RemoteStream[Any]) -> None:
        """Have whatever still comes for a stream dropped."""
        if self.streams.pop(stream.number, None) is not None:
            self._closed_counts.append((stream.n_items, stream.n_bytes, stream.waited))

    def wait(self, stream: RemoteStream[Any]) -> None:
        """Wait until `stream` has something, or is closed.

        The first thread that waits reads for all; the others wait for it to have read, and may then find
        nothing.
        """

        def has_to_wait() -> bool:
            return self._someone_reads and self._lacks(stream)

        started = time.perf_counter()
        reads = False
        try:
            with self._changed:
                while has_to_wait():
                    self._n_waiting += 1
                    self.ring(0)
                    try:
                        in_slices(lambda seconds: self._changed.wait(seconds) or not has_to_wait(), None)
                    finally:
                        self._n_waiting -= 1
                if self._lacks(stream):
                    self._someone_reads = reads = True
            while reads:
                quiet_since = time.perf_counter()
                number = 0 if self._n_waiting else stream.number
                if not self.read(self.stall_timeout, number) and not self.give_up(quiet_since):
                    continue
                if self._n_waiting or not self._lacks(stream):
                    break
        finally:
            if reads:
                self._someone_reads = False  # first, for a Ctrl-C may come while the lock is taken
                with self._changed:
                    self._changed.notify_all()
            stream.waited += time.perf_counter() - started

    def _lacks(self, stream: RemoteStream[Any]) -> bool:
        return not stream.queue and stream.number in self.streams

    def give_up(self, quiet_since: float) -> bool:
        """Have all streams raise, because nothing came for so long; return whether it was so."""
        quiet = time.perf_counter() - quiet_since
        if self.stall_timeout is None or quiet > self.stall_timeout + LATE_SECONDS:
            return False
        names = {stream.number: stream.name for stream in list(self.streams.values())}
        number, worker, words = self.end_stalled()
        if number:
            ran = f"It was running {names.get(number, 'a stream that was closed')}."
        else:
            waiting = ", ".join(sorted(set(names.values())))
            ran = f"It was starting, or loading, opening or closing a stream; open were {waiting}."
        quiet = max(quiet, self.stall_timeout)  # it was that long where no command could be sent
        for_how_long = f"for {quiet:.1f} s (stall_timeout={self.stall_timeout})"
        self.stalled = f"{worker} delivered nothing {for_how_long}. {ran} {words}"
        self.fail(lambda: WorkerError(self.stalled))
        return True

    def is_dead(self) -> bool:
        """Whether the worker has ended, or was given up."""
        return bool(self.stalled)

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """Put a Failure into every queue."""
        for stream in list(self.streams.values()):
            stream.queue.append(Failure(make_error()))

    def end_streams(self) -> None:
        """Have all streams raise, because the pool is closed."""
        if self.closed:
            return
        self.closed = CLOSED
        for stream in list(self.streams.values()):
            stream.queue.clear()
        self.fail(lambda: WorkerError(self.stalled) if self.stalled else PescadorError(self.closed))

    def stats(self) -> WorkerStats:
        """Return what this worker did so far."""
        with self._changed:
            streams = list(self.streams.values())
            statistics = self.statistics
            for _ in range(len(self._closed_counts)):
                n_items, n_bytes, waited = self._closed_counts.popleft()
                statistics.items += n_items
                statistics.bytes += n_bytes
                statistics.consumer_wait += waited
            entries = [stream.stats() for stream in streams]
            return replace(
                statistics,
                items=statistics.items + sum(entry.items for entry in entries),
                bytes=statistics.bytes + sum(stream.n_bytes for stream in streams),
                consumer_wait=statistics.consumer_wait + sum(entry.consumer_wait for entry in entries),
                streams=len(streams),
                queue_depth=sum(entry.queue_depth for entry in entries),
                open_streams=entries,
            )


class WorkerPool(Pool):
    """A pool whose streams run on workers that take commands."""

    def __init__(self, workers: list[WorkerHandle]) -> None:
        self.workers = workers
        self._numbers = itertools.count(1)
        self._closed = False

    def recipe(self, streamer: Streamer[Any]) -> Any:
        """Return what a worker makes the stream from."""
        return streamer

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, prefetch: int | None
    ) -> Stream[T]:
        if self._closed:
            raise PescadorError("the pool of this ParallelStreamer was closed")
        recipe = self.recipe(streamer)
        worker = min(self.workers, key=lambda worker: len(worker.streams))
        stream: RemoteStream[T] = RemoteStream(worker, next(self._numbers), prefetch, streamer)
        worker.open(stream, recipe, seed, max_iter)
        return stream

    def close(self) -> None:
        # It may be called again after a Ctrl-C has interrupted it, and ends what is left.
        self._closed = True
        try:
            for worker in self.workers:
                worker.end_streams()
        finally:
            self.end_workers()

    @abstractmethod
    def end_workers(self) -> None:
        """End all workers that are left, and wait until they are gone."""

    @property
    def broken(self) -> bool:
        return self._closed or any(worker.is_dead() for worker in self.workers)

    def stats(self) -> list[WorkerStats]:
        return [worker.stats() for worker in self.workers]
