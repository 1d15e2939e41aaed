"""A worker process, seen from the consumer: its messages, and its death.

Whichever thread waits first reads the messages, for all streams of the worker; the others wait until it has
read, look at their queues, and one of them reads on. The death of a worker shows as the end of its
connection, or earlier by its pidfd; whoever waits learns of it then, and a new iteration looks first
(``WorkerPool.broken``).
"""

from __future__ import annotations

import contextlib
import math
import pickle
import socket
import threading
import time
from typing import Any

from ...exceptions import PescadorError, WorkerError
from ...opening import State
from ...seeding import WORKER, Seed
from ..processes.process import Process, end
from ..processes.stacks import STALL_SIGNAL, Report
from ..protocol import messages
from ..protocol.connection import Connection
from ..protocol.transport import Receiver
from ..protocol.world import World
from ..system.pids import process_state
from ..system.shared_memory import Handle, close_all
from ..system.waiting import in_slices
from .backoff import Backoff
from .pace import Pace
from .recipes import Recipe
from .remote_stream import RemoteStream
from .restarts import Replaceable, Restarts
from .worker_handle import WorkerState

__all__ = ["ProcessHandle"]

# How long a consumer sleeps before it asks a second time for what it wants, now through the wake-up socket.
WAKEUP_MILLISECONDS = 2
STARVING_WAKEUP_MILLISECONDS = 16  # where it starves, and a worker may keep what is wanted for a while
STACK_SECONDS = 1.0  # for a worker that stalled to write its stack


class ProcessHandle(Replaceable):
    """The consumer's side of a worker process."""

    def __init__(
        self,
        number: int,
        process: Process,
        connection: Connection,
        wakeup: socket.socket,
        receiver: Receiver,
        world: World,
        pace: Pace,
        stall_timeout: float | None,
        report: Report | None,
        restarts: Restarts | None = None,
    ) -> None:
        super().__init__(stall_timeout, process, report, restarts)
        self._number = number
        self._world = world  # of which the worker knows
        self.connection = connection
        self.statistics.pid = process.pid
        self._wakeup = wakeup
        wakeup.setblocking(False)  # it is full only while the worker cannot listen
        self._records = self._receiver = receiver
        self._pace = pace
        self._n_received = 0
        self._backoff = Backoff()
        self._last_words = ""
        self._reader = 0  # the thread that reads, by its identifier
        self._left: set[int] = (
            set()
        )  # of a worker that was replaced: streams that have not taken all that came

    def command(self, name: str, *arguments: Any, handles: tuple[Handle, ...] = ()) -> None:
        if not self.is_ours():
            return
        try:
            self.connection.send(pickle.dumps((name, *arguments), 5), handles=handles)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker is gone, and whoever waits for it learns of that
        except PescadorError:
            raise  # it was not sent
        except BaseException as error:  # a Ctrl-C, most likely; nobody knows whether it was
            self.connection.give_up(error)
            raise

    def _return_released(self, *command: Any) -> None:
        try:
            super()._return_released(*command)
        except BaseException as error:  # a Ctrl-C, most likely; what was taken is told to nobody
            self.connection.give_up(error)
            raise

    def begin(self, world: World, seed: Seed) -> None:
        """Tell the worker that an iteration begins."""
        if world != self._world:
            self.command("world", world)
            self._world = world
        self.command("seed", seed.child(WORKER, self._number))

    def open(self, stream: RemoteStream[Any], recipe: Recipe, seed: Seed, max_iter: int | None) -> None:
        if self._restarts is not None:
            stream.opening = (recipe, seed, max_iter)
        super().open(stream, recipe, seed, max_iter)

    def wait(self, stream: RemoteStream[Any]) -> None:
        def has_to_wait() -> bool:
            return bool(self._reader) and self._lacks(stream)

        started = time.perf_counter()
        reads = False
        try:
            with self._changed:
                while has_to_wait():
                    self._n_waiting += 1
                    try:
                        self._wake_up(0)
                        in_slices(lambda seconds: self._changed.wait(seconds) or not has_to_wait(), None)
                    finally:
                        self._n_waiting -= 1
                if self._lacks(stream):
                    reads = True
                    self._reader = threading.get_ident()
            while reads:
                quiet_since = time.perf_counter()
                if not self._read(0 if self._n_waiting else stream.number) and not self.give_up(quiet_since):
                    continue
                if self._n_waiting or not self._lacks(stream):
                    break
        finally:
            if reads:
                self._leave()
            ended = time.perf_counter()
            stream.waited += ended - started
            self._pace.add_wait(started, ended)

    def _leave(self) -> None:
        """Let another thread read."""
        self._reader = 0  # first, for a Ctrl-C may come while the lock is taken
        with self._changed:
            self._changed.notify_all()

    def _read(self, number: int) -> bool:
        """Wait until something came from the worker, and put it into the queues; one thread at a time.

        Returns False if nothing came in time. Until something is there of the stream of that `number` (0: of
        any), the worker may keep what it has of others, to send all of it together.
        """
        if self.state is not WorkerState.RUNNING or self.connection.broken:
            self._die()
            return True
        try:
            if self._take_message():
                return True
            self._receiver.collect()
            self._return_many_released()
            return self._backoff.wait(self._take_message, lambda: self._sleep(number))
        except EOFError:
            self._take_what_is_left()
            self._die()
            return True

    def _sleep(self, number: int) -> bool:
        """Wait until a message wakes this thread, and take it; return False if none came in time."""
        starves = self._pace.is_starving
        self._return_released("want", number, self._n_received, starves)
        if not self._receiver.wait(STARVING_WAKEUP_MILLISECONDS if starves else WAKEUP_MILLISECONDS):
            self._wake_up(0 if self._n_waiting else number)
            wait = self._receiver.wait

            def comes(seconds: float) -> bool:
                # A connection does not end where processes that the consumer forked have copies of it.
                return wait(math.ceil(1000 * seconds)) or self.is_dead()

            if not in_slices(comes, self.stall_timeout):
                return False
        if not self._take_message() and self.is_dead():
            raise EOFError
        return True

    def _wake_up(self, number: int) -> None:
        """Have the worker send what it has of a stream (0: of any), also while a generator is running."""
        with contextlib.suppress(OSError):
            self._wakeup.send(messages.WANT.pack(number, self._n_received))

    def _take_what_is_left(self) -> None:
        with contextlib.suppress(EOFError):
            while self._take_message():
                pass

    def end_stalled(self) -> tuple[int, str, str]:
        assert self._report is not None
        pid = self.process.pid
        state = process_state(pid)
        end([self.process], 0, STALL_SIGNAL, STACK_SECONDS)
        self._take_what_is_left()
        number, stack = self._report.read()
        words = f"Its stack:\n{stack}" if stack else f"It gave no stack: the process was {state}."
        return number, f"worker process {pid}", f"It was ended. {words}"

    def _take_message(self) -> bool:
        """Take a message, if there is one."""
        if self.state is WorkerState.CLOSED:  # perhaps by a signal handler in the thread that reads
            raise EOFError
        try:
            return self._take_next_message()
        except EOFError:
            raise
        except BaseException as error:  # a Ctrl-C, most likely; without what was in hand nothing makes sense
            self.connection.give_up(error)
            raise

    def _take_next_message(self) -> bool:
        received = self._receiver.receive()
        if received is None:
            return False
        message, handles = received
        kind = message[:1]
        if kind == messages.ITEMS:
            self._n_received += 1
            self._take_items(memoryview(message))
        elif kind == messages.SCHEMA:
            self._decoder.define(memoryview(message)[1:])
        elif kind == messages.LAST_WORDS:
            self._last_words = bytes(message[1:]).decode(errors="replace")
        else:
            try:
                self._receiver.obey(message, handles)
            finally:
                close_all(handles)
        return True

    def is_dead(self) -> bool:
        return self.state is not WorkerState.RUNNING or bool(self.connection.broken) or self.process.wait(0)

    def open_again(self, stream: RemoteStream[Any], state: State, n_credits: int) -> None:
        """Open a stream where it stood on a worker that this one replaces."""
        recipe, seed, max_iter = stream.opening
        self._supply(recipe.needs)
        self.command("open", stream.number, recipe.data, seed, max_iter, n_credits, state)

    def is_cut_off(self) -> bool:
        return bool(self.connection.broken)

    def revive(self) -> bool:
        """Return whether this worker, which has died, is replaced; do it, if nobody reads who would."""
        with self._changed:
            if self._reader:
                return self._restarts is not None
            self._reader = threading.get_ident()
        try:
            self._take_what_is_left()
            self._die()
        finally:
            self._leave()
        return self.state is WorkerState.REPLACED

    def _die(self) -> None:
        """Have all streams raise what became of the worker, or of the pool before that."""
        error = ""
        if self.state is WorkerState.RUNNING:
            if self.connection.broken:
                cause = f"is not used any more: {self.connection.broken}"
            else:
                self.process.wait(1.0)
                cause = self.process.exit_cause()
            running = ", ".join(sorted({stream.name for stream in list(self.streams.values())}))
            words = f"\n{self._last_words}" if self._last_words else ""
            error = f"worker process {self.process.pid} {cause}."
            error += f" It was running {running}.{words}" if running else words
            if self.replace(error):
                return
        self.end(WorkerState.DEAD, lambda: WorkerError(error))

    def end_streams(self) -> None:
        if self.state is WorkerState.RUNNING and self.is_dead():  # the streams are to learn of that
            self._die()
        super().end_streams()

    def close(self) -> None:
        """Release what is held. The worker has ended, and the streams were."""
        with self._changed:  # a thread that waits for the worker learns of its end, and then leaves
            self._changed.wait_for(lambda: self._reader in (0, threading.get_ident()), timeout=5)
        self._close()

    def _close(self) -> None:
        try:
            self._is_open.pop()
        except IndexError:  # it was closed, perhaps by another thread
            return
        self._receiver.close()
        self.connection.close()
        if self._report is not None:
            self._report.close()
        self._wakeup.close()
