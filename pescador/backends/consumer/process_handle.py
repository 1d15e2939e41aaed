"""A worker process, seen from the consumer: its messages, and its death.

Whichever thread waits first reads the messages, for all streams of the worker; the others wait until it has
read, look at their queues, and one of them reads on. The death of a worker shows as the end of its
connection, or earlier by its pidfd; whoever waits learns of it then, and a new iteration looks first
(``WorkerPool.broken``).
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import threading
import time
from collections.abc import Iterable
from typing import Any

from ...exceptions import PescadorError, WorkerError
from ...seeding import WORKER, Seed
from ..processes.process import Process, end
from ..processes.stacks import STALL_SIGNAL, Report
from ..protocol import messages
from ..protocol.backoff import Backoff
from ..protocol.codec import ALIGNED_BYTES, Decoder, aligned_body
from ..protocol.connection import Connection
from ..protocol.errors import load_error
from ..protocol.messages import NOWHERE, AnyExtent
from ..protocol.pickling import unpickled
from ..protocol.transport import MAX_EXTENTS, Receiver
from ..protocol.world import World
from ..system.descriptors import close_all
from ..system.pids import process_state
from ..system.shared_memory import Bytes
from ..system.waiting import in_slices
from .recipes import Part, Recipe, Segment
from .remote_stream import End, Failure, RemoteStream
from .worker_handle import State, WorkerHandle

__all__ = ["ProcessHandle"]

# How long a consumer sleeps before it asks a second time for what it wants, now through the wake-up pipe.
WAKEUP_MILLISECONDS = 2
STACK_SECONDS = 1.0  # for a worker that stalled to write its stack


class ProcessHandle(WorkerHandle):
    """The consumer's side of a worker process."""

    def __init__(
        self,
        number: int,
        process: Process,
        connection: Connection,
        wakeup: int,
        receiver: Receiver,
        world: World,
        stall_timeout: float | None,
        report: Report | None,
    ) -> None:
        super().__init__(stall_timeout)
        self._number = number
        self._world = world  # of which the worker knows
        self._report = report
        self.process = process
        self.connection = connection
        self.statistics.pid = process.pid
        self._wakeup = wakeup
        os.set_blocking(wakeup, False)  # it is full only while the worker cannot listen
        self._receiver = receiver
        self._decoder = Decoder()
        self._n_received = 0
        self._backoff = Backoff()
        self._sent: set[int] = set()  # numbers of the segments and parts that the worker has
        self._last_words = ""
        self._reader = 0  # the thread that reads, by its identifier
        self._supplying = threading.RLock()

    def command(self, name: str, *arguments: Any, descriptors: tuple[int, ...] = ()) -> None:
        if not self.is_ours():
            return
        try:
            self.connection.send(pickle.dumps((name, *arguments), 5), descriptors)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker is gone, and whoever waits for it learns of that
        except PescadorError:
            raise  # it was not sent
        except BaseException as error:  # a Ctrl-C, most likely; nobody knows whether it was
            self.connection.give_up(error)
            raise

    def credit(self, number: int, n_items: int) -> None:
        self._return_released("credit", number, n_items)

    def _return_released(self, *command: Any) -> None:
        """Tell the worker which records were released, if there are any, and with the last a `command`."""
        try:
            extents = self._receiver.take_released()
            while len(extents) == MAX_EXTENTS:
                self.command("free", messages.pack_extents(extents))
                extents = self._receiver.take_released()
            if extents:
                self.command("free", messages.pack_extents(extents), *command)
            elif command:
                self.command(*command)
        except BaseException as error:  # a Ctrl-C, most likely; what was taken is told to nobody
            self.connection.give_up(error)
            raise

    def _return_many_released(self) -> None:
        """Tell the worker which records were released, if it might wait for them."""
        if self._receiver.n_released >= self._receiver.release_bound:
            self._return_released()

    def begin(self, world: World, seed: Seed) -> None:
        """Tell the worker that an iteration begins."""
        if world != self._world:
            self.command("world", world)
            self._world = world
        self.command("seed", seed.child(WORKER, self._number))

    def open(self, stream: RemoteStream[Any], recipe: Recipe, seed: Seed, max_iter: int | None) -> None:
        self._supply(recipe.needs)
        super().open(stream, recipe.data, seed, max_iter)

    def _supply(self, needs: Iterable[Part | Segment]) -> None:
        """Send what a recipe needs, and the worker does not have."""
        with self._supplying:
            for need in needs:
                if need.number not in self._sent:
                    self._supply(need.needs)
                    self.command(*need.command, descriptors=need.descriptors)
                    self._sent.add(need.number)

    def drop(self, numbers: Iterable[int]) -> None:
        """Have the worker drop segments and parts, if it has them."""
        dropped = self._sent.intersection(numbers)
        if dropped:
            self._sent -= dropped
            self.command("drop", list(dropped))

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
                self._reader = 0  # first, for a Ctrl-C may come while the lock is taken
                with self._changed:
                    self._changed.notify_all()
            stream.waited += time.perf_counter() - started

    def _read(self, number: int) -> bool:
        """Wait until something came from the worker, and put it into the queues; one thread at a time.

        Returns False if nothing came in time. Until something is there of the stream of that `number` (0: of
        any), the worker may keep what it has of others, to send all of it together.
        """
        if self.state is not State.RUNNING or self.connection.broken:
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
        self._return_released("want", number, self._n_received)
        if not self._receiver.wait(WAKEUP_MILLISECONDS):
            self._wake_up(0 if self._n_waiting else number)
            wait = self._receiver.wait
            if not in_slices(lambda seconds: wait(math.ceil(1000 * seconds)), self.stall_timeout):
                return False
        if not self._take_message() and self.is_dead():
            raise EOFError
        return True

    def _wake_up(self, number: int) -> None:
        """Have the worker send what it has of a stream (0: of any), also while a generator is running."""
        with contextlib.suppress(OSError):
            os.write(self._wakeup, messages.WANT.pack(number, self._n_received))

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
        if self.state is State.CLOSED:  # perhaps by a signal handler in the thread that reads
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
        message, descriptors = received
        kind = message[:1]
        if kind == messages.ITEMS:
            self._n_received += 1
            self._take_items(memoryview(message))
        elif kind == messages.SCHEMA:
            self._decoder.define(memoryview(message)[1:])
        elif kind == messages.LAST_WORDS:
            self._last_words = message[1:].decode(errors="replace")
        else:
            try:
                self._receiver.obey(message, descriptors)
            finally:
                close_all(descriptors)
        return True

    def _take_items(self, message: memoryview) -> None:
        waited, copied, entries = messages.unpack_items(message)
        self.statistics.worker_wait, self.statistics.copied = waited, copied
        streams = self.streams
        for number, schema, inline, extent in entries:
            stream = streams.get(number)
            found: list[Any] = [(schema, body, extent) for body in inline]
            if schema == messages.END:
                found = [End]
            elif schema == messages.FAILURE:
                where = f"worker process {self.process.pid}"
                failures = [unpickled(self._body(body, extent)) for body in inline]
                found = [Failure(load_error(failure, where)) for failure in failures]
            if stream is None:
                for entry in found:
                    self.discard(entry)
            else:
                stream.queue.extend(found)
                if stream.is_closed:  # meanwhile, and perhaps before it could drop this
                    stream.drop()
                if stream.adapts:
                    stream.widen(_size(schema, inline, extent))

    def _body(self, body: memoryview | bytes, extent: AnyExtent) -> Any:
        """Return the memory of an item, which belongs to it alone."""
        return bytearray(body) if extent is NOWHERE else self._receiver.view(extent)

    def deliver(self, entry: tuple[int, Any, AnyExtent], stream: RemoteStream[Any]) -> Any:
        schema, body, extent = entry
        if extent is not NOWHERE:
            stream.n_bytes += extent[2]
            return self._decoder.decode(schema, self._record(extent))
        own = bytearray(body) if len(body) < ALIGNED_BYTES else aligned_body(body)
        if schema & messages.SCATTERED:
            stream.n_bytes += _size(schema, [body], NOWHERE)
            return self._decoder.decode_scattered(schema ^ messages.SCATTERED, own, self._record)
        stream.n_bytes += len(body)
        return self._decoder.decode(schema, own)

    def _record(self, extent: AnyExtent) -> Bytes:
        memory = self._receiver.view(extent)
        self._return_many_released()
        return memory

    def discard(self, entry: Any) -> None:
        if type(entry) is not tuple:
            return
        schema, body, extent = entry
        for record in messages.unpack_table(body)[0] if schema & messages.SCATTERED else [extent]:
            if record[0]:
                self._receiver.release(record)

    def is_dead(self) -> bool:
        return self.state is not State.RUNNING or bool(self.connection.broken) or self.process.wait(0)

    def _die(self) -> None:
        """Have all streams raise what became of the worker, or of the pool before that."""
        error = ""
        if self.state is State.RUNNING:
            if self.connection.broken:
                cause = f"is not used any more: {self.connection.broken}"
            else:
                self.process.wait(1.0)
                cause = self.process.exit_cause()
            running = ", ".join(sorted({stream.name for stream in list(self.streams.values())}))
            words = f"\n{self._last_words}" if self._last_words else ""
            error = f"worker process {self.process.pid} {cause}. It was running {running}.{words}"
        self.end(State.DEAD, lambda: WorkerError(error))

    def end_streams(self) -> None:
        if self.state is State.RUNNING and self.is_dead():  # the streams are to learn of that
            self._die()
        super().end_streams()

    def close(self) -> None:
        """Release what is held. The worker has ended, and the streams were."""
        with self._changed:  # a thread that waits for the worker learns of its end, and then leaves
            self._changed.wait_for(lambda: self._reader in (0, threading.get_ident()), timeout=5)
        self._receiver.close()
        self.connection.close()
        if self._report is not None:
            self._report.close()
        wakeup, self._wakeup = self._wakeup, -1
        if wakeup >= 0:
            os.close(wakeup)


def _size(schema: int, inline: list[Any], extent: AnyExtent) -> int:
    """Return the size of an item."""
    size = sum(map(len, inline)) // max(len(inline), 1) + extent[2]
    if schema < messages.FAILURE and schema & messages.SCATTERED:
        size += sum(record[2] for record in messages.unpack_table(inline[0])[0])
    return size
