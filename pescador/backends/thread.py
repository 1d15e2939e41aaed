"""In threads of this process: nothing is encoded, and only what a generator still holds is copied.

For generators that wait, or that spend their time in code which releases the global interpreter lock.
"""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from ..core import Streamer
from ..opening import State
from ..seeding import Seed
from .base import Backend, Pool, WorkerStats
from .consumer.pool import WorkerPool
from .consumer.remote_stream import End, Failure, RemoteStream, Snapshot
from .consumer.worker_handle import WorkerHandle, WorkerState
from .system.threads import start_thread
from .system.waiting import in_slices
from .worker.loop import Unsendable, WorkerLoop
from .worker.ownership import Ownership

__all__ = ["ThreadBackend"]

logger = logging.getLogger("pescador")

NOTICE_SECONDS = 1.0  # when to tell that a thread is waited for


class ThreadBackend(Backend):
    """Runs streams in threads."""

    def open(
        self, n_workers: int, *, timeout: float | None, stall_timeout: float | None, max_restarts: int = 0
    ) -> Pool:
        """Open a pool; its threads start with their first stream."""
        return _ThreadPool([_ThreadHandle(timeout, stall_timeout) for _ in range(n_workers)])


class _ThreadPool(WorkerPool["_ThreadHandle"]):
    def end_workers(self) -> None:
        for worker in self.workers:
            worker.command("stop")
        started = time.monotonic()
        for worker in self.workers:
            worker.join(started)


class _ThreadHandle(WorkerHandle):
    """The consumer's side of a worker thread.

    The thread appends to the queues itself, and wakes whoever waits. A waiter announces itself before
    it looks at its queue, and the thread looks for a waiter after it has appended, so one of them sees
    the other. Waiters also write into the loop which stream they want; the loop reads that when it chooses
    what to run next.
    """

    shares_objects = True

    def __init__(self, timeout: float | None, stall_timeout: float | None) -> None:
        super().__init__(stall_timeout)
        self._timeout = timeout
        self._loop = _ThreadLoop(self)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def open(self, stream: RemoteStream[Any], recipe: Any, seed: Seed, max_iter: int | None) -> None:
        super().open(stream, recipe, seed, max_iter)
        with self._starting:
            if self._thread is None and self.state is WorkerState.RUNNING:
                # A daemon: a generator that never returns must not keep the interpreter from ending.
                thread = threading.Thread(target=self._loop.run, name="pescador-worker", daemon=True)
                start_thread(thread)
                self._thread = thread  # only now, for another thread may close the pool, and join it
        if self.state is WorkerState.CLOSED:  # meanwhile; the thread was told to stop, but not waited for
            self.join(time.monotonic())

    def command(self, name: str, *arguments: Any) -> None:
        self._loop.inbox.put((name, *arguments))

    def wait(self, stream: RemoteStream[Any]) -> None:
        started = time.perf_counter()
        with self._changed:
            self._n_waiting += 1
            try:
                while self._lacks(stream):
                    self._loop.wanted = stream.number
                    quiet_since = time.perf_counter()
                    if not in_slices(
                        lambda seconds: self._changed.wait(seconds) or not self._lacks(stream),
                        self.stall_timeout,
                    ):
                        self.give_up(quiet_since)
            finally:
                self._n_waiting -= 1
        stream.waited += time.perf_counter() - started

    def put(self, number: int, entry: Any) -> None:
        """Append to the queue of a stream. Called by the worker thread."""
        stream = self.streams.get(number)
        if stream is not None:
            stream.queue.append(entry)
            self.wake()

    def wake(self) -> None:
        """Have those that wait look at their queues again."""
        if self._n_waiting:
            with self._changed:
                self._changed.notify_all()

    def end(self, state: WorkerState, make_error: Callable[[], BaseException]) -> None:
        super().end(state, make_error)
        self.wake()

    def end_stalled(self) -> tuple[int, str, str]:
        self.command("stop")
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread is not None else None
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        words = (
            "A thread cannot be ended: this one goes on until its generator returns. Use a process backend "
            f"for it. Its stack:\n{stack}"
        )
        return self._loop.running[0], "a worker thread", words

    def stats(self) -> WorkerStats:
        self.statistics.worker_wait = self._loop.waited
        self.statistics.copied = self._loop.ownership.copied
        return super().stats()

    def join(self, started: float) -> None:
        """Wait until the thread has ended, which it was told to at `started`."""
        thread = self._thread
        if thread is None or thread is threading.current_thread() or self.is_dead():
            return  # of one that stalled, the error told

        def join(until: float) -> None:
            # In slices, for a Ctrl-C that comes just before a system call does not interrupt it.
            in_slices(lambda seconds: _joined(thread, seconds), until - time.monotonic())

        end = math.inf if self._timeout is None else started + self._timeout
        join(min(end, started + NOTICE_SECONDS))
        if thread.is_alive() and time.monotonic() < end:
            logger.warning("a worker thread has not ended yet: its generator is blocked. close() waits")
            join(end)
        if thread.is_alive():
            warnings.warn(
                f"a pescador worker thread still runs {self._timeout} s after it was told to stop: its "
                "generator is blocked, and a thread cannot be killed. Use a process backend for it",
                ResourceWarning,
                stacklevel=2,
            )


def _joined(thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


class _ThreadLoop(WorkerLoop):
    def __init__(self, handle: _ThreadHandle) -> None:
        super().__init__()
        self.inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._handle = handle
        self.ownership = Ownership()
        self.probe()

    def next_command(self, block: bool) -> tuple[Any, ...] | None:
        try:
            return self.inbox.get(block)
        except queue.Empty:
            return None

    def load(self, recipe: Any) -> Streamer[Any]:
        return recipe  # type: ignore[no-any-return]

    def send(self, number: int, item: Any) -> None:
        try:
            item = self.ownership.private(item)
        except Exception as error:  # there is no memory for a copy, most likely
            raise Unsendable from error
        if number == self.wanted:  # before the consumer may want the next one
            self.wanted = None
        self._handle.put(number, item)

    def send_end(self, number: int) -> None:
        self._handle.put(number, End())

    def send_snapshot(self, number: int, state: State) -> None:
        self._handle.put(number, Snapshot(state))

    def send_failure(self, number: int, error: BaseException) -> None:
        self._handle.put(number, Failure(error))
