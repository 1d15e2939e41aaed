"""The consumer's side of a worker that is an actor of Ray: its messages, and its death.

A thread reads the messages, for as long as the worker runs, and puts items into the queues of their streams:
so what comes from another node is on its way while the consumer is busy with what came before. Those who wait
are notified. If they have waited for a while, the worker is told what they want, for it may wait for room
while what is under way is of streams from which nobody takes.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from ...exceptions import WorkerError
from ...seeding import WORKER, Seed
from ..consumer.inbox import Inbox
from ..consumer.remote_stream import RemoteStream
from ..consumer.worker_handle import WorkerState
from ..protocol import messages
from ..system.threads import start_thread
from ..system.waiting import in_slices
from . import runtime
from .actor import Place
from .actor_loop import Batch
from .causes import cause_of
from .commands import Commands
from .records import BUDGET, ReceivedRecords

__all__ = ["RayHandle"]

WANT_SECONDS = 2e-3  # how long a consumer waits before it says for what
SHUT_DOWN = "is not used any more: Ray was shut down in this process"
STACK_SECONDS = 2.0  # for a worker that stalled to tell its stack


class RayHandle(Inbox):
    """The consumer's side of a worker."""

    _records: ReceivedRecords

    # To hear of credits takes a worker milliseconds here, in which the next batch must be under way.
    window_bytes = BUDGET

    def __init__(
        self,
        session: str,
        number: int,
        actor: Any,
        place: Place,
        commands: Commands,
        stall_timeout: float | None,
    ) -> None:
        super().__init__(stall_timeout)
        self.actor = actor
        self.place = place
        self.statistics.pid = place.pid
        self.statistics.host = place.host
        self.was_killed = False
        self._number = number
        self._session = session
        self._commands = commands
        self._records = ReceivedRecords()
        self._n_received = 0
        self._thread = threading.Thread(target=self._read, name="pescador-reader", daemon=True)

    @property
    def worker_name(self) -> str:
        return str(self.place)

    def start(self) -> None:
        """Have the worker run, and read its messages."""
        self._stream = self.actor.run.remote()
        start_thread(self._thread)

    def command(self, name: str, *arguments: Any, handles: tuple[Any, ...] = ()) -> None:
        if self.is_ours():
            self._commands.put(self.actor, pickle.dumps((name, *arguments), 5), handles)

    def begin(self, seed: Seed) -> None:
        """Tell the worker that an iteration begins."""
        self.command("seed", seed.child(WORKER, self._number))

    def wait(self, stream: RemoteStream[Any]) -> None:
        def comes(seconds: float) -> bool:
            if self._changed.wait(seconds) or not self._lacks(stream):
                return True
            if not runtime.is_there(self._session):  # the thread that reads may not get out of Ray any more
                self._die(SHUT_DOWN)
            return not self._lacks(stream)

        started = time.perf_counter()
        with self._changed:
            self._n_waiting += 1
            try:
                while self._lacks(stream):
                    quiet_since = time.perf_counter()
                    if in_slices(comes, WANT_SECONDS):
                        continue
                    number = 0 if self._n_waiting > 1 else stream.number
                    self._return_released("want", number, self._n_received)
                    if not in_slices(comes, self.stall_timeout):
                        self.give_up(quiet_since)
            finally:
                self._n_waiting -= 1
        stream.waited += time.perf_counter() - started

    def _wake(self) -> None:
        """Have those that wait look at their queues again."""
        if self._n_waiting:
            with self._changed:
                self._changed.notify_all()

    def end(self, state: WorkerState, make_error: Callable[[], BaseException]) -> None:
        super().end(state, make_error)
        self._wake()

    # The reading thread

    def _read(self) -> None:
        try:
            for reference in self._stream:
                if not runtime.is_there(self._session):
                    break
                batch: Batch = ray.get(reference)
                del reference
                self._take(batch)
                del batch  # or it would stay in the object store until the next one is here
                self._wake()
        except BaseException as error:  # SystemExit where the runtime ends
            self._die(cause_of(error) if runtime.is_there(self._session) else SHUT_DOWN)
        else:
            self._die("has ended" if runtime.is_there(self._session) else SHUT_DOWN)

    def _take(self, batch: Batch) -> None:
        for number, buffer in zip(batch.numbers, batch.memory, strict=True):
            self._records.add(number, buffer)
        for message in batch.messages:
            if message[:1] == messages.ITEMS:
                self._n_received += 1
                self._take_items(memoryview(message))
            elif message[:1] == messages.SCHEMA:
                self._decoder.define(memoryview(message)[1:])
            else:
                raise WorkerError(f"a worker sent a message of the unknown kind {message[:1]!r}")

    def _die(self, cause: str) -> None:
        """Have all streams raise what became of the worker, or of the pool before that."""
        running = ", ".join(sorted({stream.name for stream in list(self.streams.values())}))
        error = f"{self.place} {cause}."
        if running:
            error += f" It was running {running}."
        self.end(WorkerState.DEAD, lambda: WorkerError(error))

    def end_stalled(self) -> tuple[int, str, str]:
        number, stack = self._stacks()
        self.kill()
        words = f"Its stack:\n{stack}" if stack else "It gave no stack: none of its threads answers."
        return number, str(self.place), f"It was ended. {words}"

    def _stacks(self) -> tuple[int, str]:
        try:
            found: tuple[int, str] = ray.get(self.actor.stacks.remote(), timeout=STACK_SECONDS)
        except Exception:  # the process is stopped, compiled code keeps Python's lock, or it is gone
            return 0, ""
        return found

    # The end

    def join(self, seconds: float | None) -> bool:
        """Wait until the worker gives no more messages; return whether it was so, in time."""

        def ends(seconds: float) -> bool:
            self._thread.join(seconds)
            return not self._thread.is_alive()

        if self._thread is threading.current_thread() or self._thread.ident is None:
            return True
        return not self._thread.is_alive() or in_slices(ends, seconds)

    def kill(self) -> None:
        """End the worker now, if it has not ended."""
        self.was_killed = True
        if runtime.is_there(self._session):  # or the worker is gone with it
            with contextlib.suppress(Exception):
                ray.kill(self.actor)

    def close(self) -> None:
        """Release what is held."""
        self._records.close()
