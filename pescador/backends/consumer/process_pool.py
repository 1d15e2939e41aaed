"""A pool of worker processes, seen from the consumer.

What all process backends share is here: starting workers, sending them recipes and commands, reading
their messages, and learning of their death. What differs is how records (the bodies of large items)
get from one process to the other (see :mod:`.transport`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import sys
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import current_process
from typing import Any

from ...core import Streamer
from ...exceptions import PescadorError, WorkerError
from ...seeding import WORKER, Seed
from ..base import Backend, Pool
from ..processes.launcher import Launcher, Process, cannot_start, check_start_method, end
from ..processes.stacks import STALL_SIGNAL, Report, process_state
from ..protocol import messages, script
from ..protocol.codec import Decoder
from ..protocol.connection import Backoff, Connection, close_all
from ..protocol.errors import load_error
from ..protocol.messages import NOWHERE, AnyExtent
from ..protocol.pickling import unpickled
from ..protocol.transport import MAX_EXTENTS, Receiver
from ..protocol.world import World
from ..system.owner import this_owner
from ..system.shared_memory import Bytes
from .pool import CLOSED, End, Failure, RemoteStream, WorkerHandle, WorkerPool, in_slices
from .recipes import Part, Recipe, Recipes, Segment

__all__ = ["ProcessBackend"]

logger = logging.getLogger("pescador")

# How long a consumer sleeps until it rings the wakeup, for items that the worker has packed but not sent.
WAKEUP_MILLISECONDS = 2

# How long a worker that stalled may take to write its stack.
STACK_SECONDS = 1.0


class ProcessBackend(Backend):
    """A backend whose workers are processes."""

    def __init__(self, start_method: str | None = None) -> None:
        self.start_method = check_start_method(start_method)

    @abstractmethod
    def transport(self, connection: Connection, process: Process | None) -> tuple[Any, dict[str, Any], Any]:
        """Return the class of the Sender, its options, and a function that makes the Receiver."""

    def open(self, n_workers: int, *, timeout: float | None, stall_timeout: float | None) -> Pool:
        """Start the workers, side by side."""
        try:
            return self._open(n_workers, timeout, stall_timeout)
        except OSError as error:
            raise cannot_start(error) from error

    def _open(self, n_workers: int, timeout: float | None, stall_timeout: float | None) -> Pool:
        setup = {
            "consumer": str(this_owner()),
            "script": (script.names(), script.filename()),
            "authkey": bytes(current_process().authkey),  # which proxies of a manager need
            "world": World(),
        }
        launcher = Launcher(self.start_method)
        workers: list[WorkerHandle] = []
        try:
            for number in range(n_workers):
                workers.append(_start(self, launcher, number, setup, stall_timeout))
        except BaseException:
            _end(workers, launcher, timeout)
            raise
        return _ProcessPool(workers, launcher, timeout)


def _start(
    backend: ProcessBackend,
    launcher: Launcher,
    number: int,
    setup: dict[str, Any],
    stall_timeout: float | None,
) -> _ProcessHandle:
    report = None if stall_timeout is None else Report()
    connection, workers_connection = Connection.pair()
    workers_wakeup, wakeup = os.pipe()
    process = None
    try:
        process = launcher.start(workers_connection, workers_wakeup, (connection, wakeup))
        sender, options, make_receiver = backend.transport(connection, process)
        setup = {**setup, "transport": (sender, options)}
        with contextlib.suppress(ConnectionError):  # as of any command, see there
            connection.send(pickle.dumps(setup, 5), () if report is None else (report.fileno(),))
        receiver = make_receiver(connection, process.pidfd)
        return _ProcessHandle(
            number, process, connection, wakeup, receiver, setup["world"], stall_timeout, report
        )
    except BaseException:
        connection.close()
        os.close(wakeup)
        if report is not None:
            report.close()
        if process is not None:
            end([process], 0)
        raise


def _end(workers: list[WorkerHandle], launcher: Launcher, timeout: float | None) -> None:
    """End workers, as far as they have not ended: what was interrupted may be done again."""
    handles = [worker for worker in workers if isinstance(worker, _ProcessHandle)]
    for handle in handles:
        handle.connection.hang_up()  # which needs no room in the socket, and stops the worker
    processes = [handle.process for handle in handles]

    def tell_who_is_waited_for(left: Sequence[Process]) -> None:
        bound = "until then" if timeout is None else f"for {timeout:g} s at most, as timeout says"
        for handle in handles:
            if handle.process in left:
                logger.warning(
                    "worker process %d has not ended yet: %s. close() waits for it %s",
                    handle.process.pid,
                    handle.what_runs(),
                    bound,
                )

    try:
        end(processes, timeout, notice=tell_who_is_waited_for)
    except BaseException:  # Ctrl-C: they are not waited for any longer
        end(processes, 0)
        raise
    finally:
        for handle in handles:
            handle.close()
        launcher.close()


def _size(schema: int, inline: list[Any], extent: AnyExtent) -> int:
    """Return the size of an item."""
    size = sum(map(len, inline)) // max(len(inline), 1) + extent[2]
    if schema < messages.FAILURE and schema & messages.SCATTERED:
        size += sum(record[2] for record in messages.unpack_table(inline[0])[0])
    return size


class _ProcessPool(WorkerPool):
    def __init__(self, workers: list[WorkerHandle], launcher: Launcher, timeout: float | None) -> None:
        super().__init__(workers)
        self._launcher = launcher
        self._timeout = timeout
        self._recipes = Recipes()

    def begin(self, seed: Seed) -> None:
        self._recipes.begin()
        self._drop()
        world = World()
        for worker in self.workers:
            assert isinstance(worker, _ProcessHandle)
            worker.begin(world, seed)

    def recipe(self, streamer: Streamer[Any]) -> Recipe:
        recipe = self._recipes.make(streamer)
        self._drop()
        return recipe

    def _drop(self) -> None:
        """Have the workers drop what was given up."""
        given_up = self._recipes.given_up
        numbers = [given_up.popleft() for _ in range(len(given_up))]
        if numbers:
            for worker in self.workers:
                assert isinstance(worker, _ProcessHandle)
                worker.drop(numbers)

    def end_workers(self) -> None:
        _end(self.workers, self._launcher, self._timeout)
        self._recipes.close()


class _ProcessHandle(WorkerHandle):
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
        os.set_blocking(wakeup, False)  # if it is full of rings, the worker has enough of them
        self._receiver = receiver
        self._decoder = Decoder()
        self._n_received = 0
        self._backoff = Backoff()
        self._sent: set[int] = set()  # numbers of the segments and parts that the worker has
        self._last_words = ""
        self._closed_last: Callable[[], Streamer[Any] | None] = lambda: None  # the stream that was
        self._dead = False

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
        for need in needs:
            if need.number not in self._sent:
                self._supply(need.needs)
                self.command(*need.command(), descriptors=need.descriptors())
                self._sent.add(need.number)  # only now, for another thread may need it, too

    def drop(self, numbers: Iterable[int]) -> None:
        """Have the worker drop segments and parts, if it has them."""
        dropped = self._sent.intersection(numbers)
        if dropped:
            self._sent -= dropped
            self.command("drop", list(dropped))

    def read(self, timeout: float | None, number: int) -> bool:
        if self._dead or self.connection.broken:
            self._die()
            return True
        try:
            if self._take_message():
                return True
            self._receiver.collect()
            self._return_many_released()
            return self._backoff.wait(self._take_message, lambda: self._sleep(timeout, number))
        except EOFError:
            self._take_what_is_left()
            self._die()
            return True

    def _sleep(self, timeout: float | None, number: int) -> bool:
        """Wait until a message wakes this thread, and take it; return False if none came in time."""
        self._return_released("wait", self._n_received, number)
        if not self._receiver.wait(WAKEUP_MILLISECONDS):
            self.ring(0 if self._n_waiting else number)
            if not in_slices(lambda seconds: self._receiver.wait(math.ceil(1000 * seconds)), timeout):
                return False
        if not self._take_message() and self.is_dead():
            raise EOFError
        return True

    def ring(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wakeup, number.to_bytes(8, sys.byteorder))

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
        elif kind == messages.SEGMENT:
            self._receiver.adopt(pickle.loads(message[1:]), descriptors.pop())
        elif kind == messages.NO_SEGMENT:
            self._receiver.drop(pickle.loads(message[1:]))
        elif kind == messages.LAST_WORDS:
            self._last_words = message[1:].decode(errors="replace")
        close_all(descriptors)
        return True

    def _take_items(self, message: memoryview) -> None:
        waited, copied, entries = messages.unpack_items(message, self._receiver.view)
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
        if schema & messages.SCATTERED:
            stream.n_bytes += _size(schema, [body], NOWHERE)
            return self._decoder.decode_scattered(schema ^ messages.SCATTERED, bytearray(body), self._record)
        stream.n_bytes += len(body)
        return self._decoder.decode(schema, bytearray(body))

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
        return self._dead or bool(self.connection.broken) or self.process.wait(0)

    def forget(self, stream: RemoteStream[Any]) -> None:
        super().forget(stream)
        self._closed_last = weakref.ref(stream.streamer)

    def what_runs(self) -> str:
        """Return what the worker does, as far as one can tell, while it is waited for."""
        running = sorted({stream.name for stream in list(self.streams.values())})
        if not running:
            closed = self._closed_last()
            return (
                f"it runs {closed!r}, which was closed, or exit functions"
                if closed
                else "it runs exit functions"
            )
        more = f" and {len(running) - 3} more" if len(running) > 3 else ""
        return f"it runs {', '.join(running[:3])}{more}, or their exit functions"

    def _die(self) -> None:
        """Tell all streams that the worker is dead."""
        if self.closed:
            self.fail(lambda: PescadorError(self.closed))
            return
        if self.connection.broken:
            cause = f"is not used any more: {self.connection.broken}"
        else:
            self.process.wait(1.0)
            cause = self.process.exit_cause()
        self._dead = True
        words = f"\n{self._last_words}" if self._last_words else ""
        streams = {stream.number: stream.name for stream in list(self.streams.values())}

        def make_error() -> WorkerError:
            running = ", ".join(sorted(set(streams.values())))
            died = f"worker process {self.process.pid} {cause}. It was running {running}.{words}"
            return WorkerError(self.stalled or died)

        self.fail(make_error)

    def end_streams(self) -> None:
        if not self.closed and self.is_dead():  # of that the streams are to learn
            for stream in list(self.streams.values()):
                stream.queue.clear()
            self._die()
            self.closed = CLOSED
        super().end_streams()

    def close(self) -> None:
        """Release what is held. The worker has ended."""
        self._dead = True
        with self._changed:  # a thread that waits for the worker learns of its end, and then leaves
            self._changed.wait_for(lambda: not self._someone_reads, timeout=5)
        self._receiver.close()
        self.connection.close()
        if self._report is not None:
            self._report.close()
        wakeup, self._wakeup = self._wakeup, -1
        if wakeup >= 0:
            os.close(wakeup)
