"""A worker, seen from the consumer.

It feeds the queues of its streams, and has one :class:`WorkerState`. In all states but RUNNING it delivers
nothing any more: its streams raise, those that are open then and those that are opened later. What they raise
is decided by the state that came first, so that the cause of a death is still told when the pool has been
closed.

A worker *stalls* when a consumer waits and nothing comes for `stall_timeout` seconds, of any of its streams:
it runs one generator at a time, so the one that runs is stuck. It is given up as one that died.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from ...core import Streamer
from ...exceptions import PescadorError, WorkerError
from ...seeding import Seed
from ..base import WorkerStats
from .remote_stream import Failure, RemoteStream

__all__ = ["WorkerHandle", "WorkerState"]

# Seconds by which a wait may end late. If it ends later, this process did not run (Ctrl-Z, or a machine that
# was suspended), and perhaps the worker did not either; so that wait tells nothing of the worker.
LATE_SECONDS = 1.0


class WorkerState(Enum):
    """What has become of a worker."""

    RUNNING = auto()
    STALLED = auto()
    DEAD = auto()
    REPLACED = auto()  # it died, and another one has its streams
    CLOSED = auto()  # its pool was


class WorkerHandle(ABC):
    """The consumer's side of one worker.

    Any thread may call its methods, and the garbage collector those that a stream calls when it is closed.
    """

    shares_objects = False
    """Whether its generators get objects of this process, so that one may be an open iterator."""

    window_bytes = 1 << 23
    """How far ahead its streams of small items may be together, where it was left to us."""

    def __init__(self, stall_timeout: float | None) -> None:
        self.state = WorkerState.RUNNING
        self.streams: dict[int, RemoteStream[Any]] = {}
        self.stall_timeout = stall_timeout
        self.statistics = WorkerStats()  # of streams that were closed, besides what the worker says
        self._before = WorkerStats()  # of the workers that this one replaced
        self._consumer = os.getpid()
        self._make_error: Callable[[], BaseException] = PescadorError  # once it does not run any more
        self._ends: dict[str, tuple[Callable[[], BaseException], WorkerState]] = {}
        self._closed_last: Callable[[], Streamer[Any] | None] = lambda: None  # the stream that was
        # Items, bytes and seconds of streams that were closed, perhaps by the garbage collector.
        self._closed_counts: deque[tuple[int, int, float]] = deque()
        self._changed = threading.Condition()  # notified when one may look at the queues again
        self._n_waiting = 0  # threads that wait for that
        _handles.add(self)

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
    def wait(self, stream: RemoteStream[Any]) -> None:
        """Wait until there may be something in the queue of a stream, or it is closed."""

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

    def leave(self, stream: RemoteStream[Any]) -> None:
        """Take note that a stream has taken all that came of it before another worker took over."""

    def deliver(self, entry: Any, stream: RemoteStream[Any]) -> Any:
        """Turn an entry of the queue of a stream into an item."""
        return entry

    def discard(self, entry: Any) -> None:
        """Drop an entry of a queue that nobody will take."""

    def open(self, stream: RemoteStream[Any], recipe: Any, seed: Seed, max_iter: int | None) -> None:
        """Start a stream, whose items come into the queue of `stream`."""
        self.streams[stream.number] = stream
        if self.state is WorkerState.RUNNING:
            self.command("open", stream.number, recipe, seed, max_iter, stream.window, stream.snapshot)
        # It may have changed meanwhile, and missed this stream.
        if self.state is WorkerState.REPLACED:
            self.hand_over(stream)
        elif self.state is not WorkerState.RUNNING and not stream.queue:
            stream.queue.append(Failure(self._make_error()))

    def hand_over(self, stream: RemoteStream[Any]) -> None:
        """Have the worker that replaced this one go on with a stream, if it does not yet."""
        raise NotImplementedError

    def forget(self, stream: RemoteStream[Any]) -> None:
        """Have whatever still comes for a stream dropped."""
        if self.streams.pop(stream.number, None) is not None:
            self._closed_counts.append((stream.n_items, stream.n_bytes, stream.waited))
        self._closed_last = weakref.ref(stream.streamer)

    def _lacks(self, stream: RemoteStream[Any]) -> bool:
        return not stream.queue and stream.number in self.streams

    def what_runs(self) -> str:
        """Return what the worker does, as far as one can tell, while it is waited for."""
        running = sorted({stream.name for stream in list(self.streams.values())})
        if running:
            more = f" and {len(running) - 3} more" if len(running) > 3 else ""
            return f"it runs {', '.join(running[:3])}{more}, or their exit functions"
        closed = self._closed_last()
        what = "" if closed is None else f"{closed!r}, which was closed, or "
        return f"it runs {what}exit functions"

    def continue_statistics(self, former: WorkerHandle) -> None:
        """Count on from what another worker has done, which this one replaces."""
        done = former.stats()
        for stream in list(former.streams.values()):  # which count on themselves
            done.items -= stream.n_items
            done.bytes -= stream.n_bytes
            done.consumer_wait -= stream.waited
        pid = self.statistics.pid
        self._before = replace(done, restarts=done.restarts + 1)
        self.statistics = replace(self._before, pid=pid)

    def is_dead(self) -> bool:
        """Whether the worker has ended, or was given up."""
        return self.state in (WorkerState.STALLED, WorkerState.DEAD, WorkerState.REPLACED)

    def end(self, state: WorkerState, make_error: Callable[[], BaseException]) -> None:
        """Have all streams raise, each an error of its own; that of an earlier end is kept."""
        self.settle(state, make_error)
        for stream in list(self.streams.values()):
            stream.queue.append(Failure(self._make_error()))

    def settle(self, state: WorkerState, make_error: Callable[[], BaseException]) -> None:
        """Have a state that is final, if there was none before, and what streams raise then."""
        # In one step, so that one of two threads is first; the state last, for it is what others look at.
        self._make_error, self.state = self._ends.setdefault("first", (make_error, state))

    def end_streams(self) -> None:
        """Have all streams raise, because the pool is closed; what came and was not taken is dropped."""
        for stream in list(self.streams.values()):
            stream.queue.clear()
        self.end(WorkerState.CLOSED, lambda: PescadorError(CLOSED))

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
        error = f"{worker} delivered nothing {for_how_long}. {ran} {words}"
        if not self.replace(error):
            self.end(WorkerState.STALLED, lambda: WorkerError(error))
        return True

    def replace(self, cause: str) -> bool:
        """Have another worker take the place of this one, which has ended; return whether one did."""
        return False

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


CLOSED = "the ParallelStreamer was closed while this stream was open"

_handles: weakref.WeakSet[WorkerHandle] = weakref.WeakSet()


def _drop_what_is_not_ours() -> None:
    """Empty the queues in a process that was forked: the memory of their items is the other process's."""
    for handle in list(_handles):
        for stream in list(handle.streams.values()):
            stream.queue.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_what_is_not_ours)
