"""A worker process.

The main thread obeys commands and runs generators (see :mod:`.worker`). Small items are packed and sent
together; large ones go where the transport's :class:`Sender` puts them, and only their place is sent.

One more thread only waits: for the consumer to end, upon which it ends this process, and for the
*bell*, which the consumer rings when it has waited for a stream for a while: then what is packed of it
is sent, with all the rest, even if the main thread is inside a generator that takes its time. So an item is
never kept from a consumer that waits for it, and no time is spent on that while the consumer is busy.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..core import Streamer
from ..exceptions import PescadorError, WorkerError
from ..memory import allocate_with
from . import wire
from .codec import Encoder, Layout, Record, Schema
from .errors import dump_error, start_thread
from .launch import ignore_interrupts
from .link import Link, close_all
from .owner import start_time, watch
from .pack import Pack
from .recipe import Buffers
from .segment import Bytes
from .stall import report_to
from .wire import NOWHERE, AnyExtent, Extent
from .worker import Stop, Unsendable, WorkerLoop, WorkerStream

__all__ = ["Sender", "main"]

T = TypeVar("T")

# A pack is sent when it holds so much (or `pack_bytes` of small items) or is so old. While the consumer waits
# for a stream of which the pack has nothing its age does not count, for to wake a consumer in vain costs more
# than the items it would get.
PACK_ITEMS = 256
PACK_RECORD_BYTES = 1 << 20
PACK_SECONDS = 1e-3

# Bodies of a pack that are more than this go through the memory of the transport, if there is one.
INLINE_BYTES = 1 << 12

ANY_STREAM = range(1, sys.maxsize)


class Sender(ABC):
    """The worker's half of a transport.

    Attributes
    ----------
    given_out : dict
        The arrays of :meth:`allocate_array` that were not sent yet.
    small_bytes : int
        Items up to this size are packed into messages; a record of its own costs a larger one less.
    pack_bytes : int
        So much is packed at most.
    """

    small_bytes = 1 << 14
    pack_bytes = 1 << 15

    def __init__(self, link: Link) -> None:
        self.link = link
        self.given_out: dict[int, Extent] = {}

    @abstractmethod
    def allocate(self, n_bytes: int) -> Record | None:
        """Return memory for a record; None if there is no room."""

    @abstractmethod
    def allocate_apart(self, n_bytes: int) -> Record:
        """Return memory for a record where there is no room."""

    def allocate_pack(self) -> Record | None:
        """Return `pack_bytes` for the bodies of small items; None if they are better sent in the message."""
        return None

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

    def try_send(self, message: bytes, extents: list[Extent]) -> bool:
        """Send a message and the records it refers to; return False if that must wait."""
        try:
            self.link.send(message, block=False)
        except BlockingIOError:
            return False
        return True

    def wait_to_send(self) -> None:
        """Wait until there may be room to send, or a command is there."""
        self.link.wait(writable=True)

    def close(self) -> None:
        """Release what is held."""


class ProcessLoop(WorkerLoop):
    """The loop of a worker process."""

    def __init__(self, link: Link, sender: Sender) -> None:
        super().__init__()
        self._link = link
        self._sender = sender
        self._encoder = Encoder()
        self._buffers = Buffers()
        self._recipes: dict[int, Streamer[Any]] = {}
        # Guards the pack and what is sent, for the waiting thread sends when the bell rings.
        self.lock = threading.RLock()
        self._pack = Pack()
        self.copied = 0  # bytes
        self._sole_owner: tuple[int, int, int] | None = None
        self._flushed = 0.0  # when the last pack was sent
        self._n_sent = 0  # messages
        self._wait_mark = -1  # how many of them had come when the consumer last waited,
        self._waited_for = 0  # and for which stream; 0: for any
        self._rung: Sequence[int] = ()  # for which streams the bell rang while there was nothing to send

    # Commands

    def next_command(self, block: bool) -> tuple[Any, ...] | None:
        received = self._link.receive(block)
        if received is None:
            return None
        message, descriptors = received
        command: tuple[Any, ...] = pickle.loads(message)
        if command[0] == "buffer":
            return (*command, descriptors.pop())
        close_all(descriptors)
        return command

    def obey_buffer(self, number: int, n_bytes: int, fd: int) -> None:
        """Take a buffer, to which recipes refer."""
        self._buffers.add(number, n_bytes, fd)

    def obey_recipe(self, number: int, data: bytes | int, places: list[tuple[int, bool]]) -> None:
        """Take a recipe, to which an ``open`` refers."""
        try:
            self._recipes[number] = self._buffers.load(data, places)
        except BaseException as error:
            failure = WorkerError(
                f"a recipe can't be loaded in worker process {os.getpid()}: {type(error).__name__}: {error}. "
                "Is everything that it imports importable there?"
            )
            failure.__cause__ = error
            self._recipes[number] = _Unloadable(failure)

    def obey_free(self, flat: bytes, *command: Any) -> None:
        """Take back memory, and obey the command that comes with that."""
        self._sender.free(wire.RELEASED.iter_unpack(flat))
        if command:
            self.obey(*command)

    def obey_wait(self, n_received: int, number: int) -> None:
        """Take note that the consumer waits for a stream (0: for any), or has waited."""
        self._wait_mark = n_received
        self._waited_for = number

    def obey_commands(self, block: bool) -> None:
        super().obey_commands(block)
        if self._pack.n_items and self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """Whether what is packed is to be sent at once."""
        if self._wait_mark == self._n_sent:  # the consumer waits, and nothing is under way that would wake it
            return not self._waited_for or self._waited_for in self._pack.streams
        return time.perf_counter() - self._flushed > PACK_SECONDS

    def load(self, recipe: int) -> Streamer[Any]:
        self._sender.prepare()
        streamer = self._recipes[recipe]
        if isinstance(streamer, _Unloadable):
            raise streamer.error
        return streamer

    def obey_forget(self, number: int) -> None:
        """Drop a recipe."""
        self._recipes.pop(number, None)

    def close(self) -> None:
        """Drop all recipes, and with them the pools of those that run in the background themselves."""
        self._recipes.clear()
        with self.lock:  # the listener may be about to send
            self._begin_pack()
            self._sender.close()

    # Items

    def send(self, number: int, item: Any) -> None:
        try:
            layout, parts = self._encoder.encode(item)
        except BaseException as error:
            raise Unsendable from error
        if self._sender.given_out:
            owners = self._owners(item, parts)
            if self._sole_owner is None:  # see probe()
                self._sole_owner = owners[0]
                return
            if self._sole_owner in owners and isinstance(layout, Schema):
                self._send_scattered(number, layout, parts, owners)
                return
        if layout.is_new and isinstance(layout, Schema):
            self._define(layout)
        self._send(number, layout.number, layout, parts)

    def _define(self, schema: Schema) -> None:
        """Tell the consumer of a schema."""
        schema.is_new = False
        with self.lock:
            self.flush()
            self._put(wire.SCHEMA + schema.definition(), [])

    def _owners(self, item: Any, parts: Sequence[Any]) -> list[tuple[int, int, int]]:
        """Return how many references there are to an item, each of its arrays, and what the arrays view."""
        return [
            (sys.getrefcount(item), sys.getrefcount(part), sys.getrefcount(getattr(part, "base", None)))
            for part in parts
        ]

    def probe(self) -> None:
        """Find out what :meth:`_owners` gives for an item that nobody else refers to.

        That depends on the version of Python, and on how many functions an item passes through.
        """

        def source() -> Generator[Any, None, None]:
            yield {"x": np.ndarray(8, np.uint8, np.zeros(8, np.uint8))}

        self._sender.given_out[0] = NOWHERE
        self._run_slice(WorkerStream(0, source(), None, 1))
        self._sender.given_out.clear()

    def _send_scattered(
        self, number: int, schema: Schema, parts: Sequence[Any], owners: Sequence[Any]
    ) -> None:
        """Send an item with arrays that were made in the memory of the transport: those are not copied."""
        if schema.is_new:
            self._define(schema)
        sole = {id(part) for part, count in zip(parts, owners, strict=True) if count == self._sole_owner}
        placed: list[Extent] = []

        def place(part: Any, field: Any) -> Extent:
            extent = self._sender.give(part) if id(part) in sole else NOWHERE
            if extent is NOWHERE and part.nbytes > self._sender.small_bytes:
                record = self._sender.allocate(part.nbytes) or self._wait_for_room(part.nbytes)
                np.copyto(field.view(record.memory, 0), part, casting="no")
                self.copied += part.nbytes
                extent = record.extent
            if extent is not NOWHERE:
                placed.append(extent)
            return extent

        try:
            body = schema.scatter(parts, place)
        except PescadorError:  # there is no memory for all of it
            self._sender.free(placed)
            raise
        with self.lock:
            self._add(number, schema.number | wire.SCATTERED, body)
            self._pack.n_record_bytes += schema.n_bytes
            if self._pack.n_record_bytes >= PACK_RECORD_BYTES or number in self._rung:
                self._flush()
        # The arrays of an item that is begun when there is no room would have to be copied.
        self._wait_for(lambda: self._sender.has_room_for(placed))

    def send_end(self, number: int) -> None:
        with self.lock:
            self._add(number, wire.END, b"")
            if number in self._rung:
                self._flush()

    def send_failure(self, number: int, error: BaseException) -> None:
        if isinstance(error, Stop):
            raise error
        self._send(number, wire.FAILURE, *self._encoder.pickle(dump_error(error)))
        self.flush()

    def _send(self, number: int, schema: int, layout: Layout, parts: Sequence[Any]) -> None:
        n_bytes = layout.n_bytes
        self.copied += n_bytes
        if n_bytes <= self._sender.small_bytes:
            body = layout.join(parts)
            with self.lock:
                self._add(number, schema, body)
                if number in self._rung:
                    self._flush()
        else:
            record = self._sender.allocate(n_bytes) or self._wait_for_room(n_bytes)
            layout.write(parts, record)
            with self.lock:
                pack = self._pack
                pack.add_record(number, schema, record.extent)
                if pack.n_record_bytes >= PACK_RECORD_BYTES or number in self._rung:
                    self._flush()

    def allocate_array(self, n_bytes: int) -> Bytes | None:
        """Return memory for :func:`pescador.empty`."""
        if n_bytes <= self._sender.small_bytes or threading.current_thread() is not threading.main_thread():
            return None
        return self._sender.allocate_array(n_bytes)

    def _wait_for_room(self, n_bytes: int) -> Record:
        """Return memory for a record, when some is free."""
        record = self._wait_for(lambda: self._sender.allocate(n_bytes))
        return record or self._sender.allocate_apart(n_bytes)

    def _wait_for(self, find: Callable[[], T]) -> T:
        """Return what is found when the consumer has given back enough, or nothing if it waits, too."""
        while not (found := find()):
            self.flush()
            if self._wait_mark == self._n_sent:
                break
            self.obey_commands(block=True)
        return found

    def _add(self, number: int, schema: int, body: bytes) -> None:
        """Add a small item to the pack, which is sent if it has no room. The lock is held."""
        pack = self._pack
        if pack.n_items and (
            pack.n_bytes + len(body) > self._sender.pack_bytes or pack.n_items >= PACK_ITEMS
        ):
            self._flush()
        self._pack.add(number, schema, body)

    def flush(self) -> None:
        """Send what is packed."""
        with self.lock:
            if self._pack.n_items:
                self._flush()

    def _flush(self) -> None:
        """Send what is packed, which is not nothing. The lock is held."""
        pack = self._pack
        bodies = NOWHERE
        if INLINE_BYTES < pack.n_bytes <= self._sender.pack_bytes:  # a scattered item may have more
            record = self._sender.allocate_pack()
            if record is not None:
                record.memory[: pack.n_bytes] = np.frombuffer(b"".join(pack.bodies), np.uint8)
                bodies = record.extent
        self._begin_pack()
        self._put(pack.message(self.waited, self.copied, bodies), pack.extents)
        self._n_sent += 1

    def _put(self, message: bytes, extents: list[Extent]) -> None:
        while not self._sender.try_send(message, extents):
            # Commands are obeyed meanwhile, so that a consumer which does not read can still close.
            self._sender.wait_to_send()
            super().obey_commands(block=False)

    def answer(self, number: int) -> bool:
        """Send what is packed, for the consumer rang for a stream (0: for any).

        If there is nothing of that stream, it runs next, and its item will be sent at once. Return False if
        nothing can be done, because the main thread is about to send.
        """
        if not self.lock.acquire(blocking=False):
            return False
        try:
            pack = self._pack
            if not (number in pack.streams or (number == 0 and pack.n_items)):
                if self._rung is not ANY_STREAM:
                    self._rung = (number,) if number else ANY_STREAM
                self.urgent = number
            elif self._sender.try_send(pack.message(self.waited, self.copied), pack.extents):
                self._begin_pack()
                self._n_sent += 1
        except OSError:  # the consumer listens no more, which the main thread will learn
            self._begin_pack()
        finally:
            self.lock.release()
        return True

    def _begin_pack(self) -> None:
        self._pack = Pack()
        self._flushed = time.perf_counter()
        self._rung = ()


class _Unloadable(Streamer[Any]):
    """Stands for a recipe that could not be loaded."""

    def __init__(self, error: Exception) -> None:
        super().__init__(())
        self.error = error


def main(link_descriptor: int, bell: int) -> None:
    """Run a worker in this process, which does nothing else, until it is told to stop."""
    ignore_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    link = Link(socket.socket(fileno=link_descriptor))
    try:
        received = link.receive()
        assert received is not None
        message, descriptors = received
        running = report_to(descriptors[0]) if descriptors else None  # first, for what follows may hang
        setup = pickle.loads(message)
        consumer = _watch(setup["consumer"])
        _prepare(setup)
        make_sender, options = setup["transport"]
        sender: Sender = make_sender(link, **options)
        loop = ProcessLoop(link, sender)
        if running is not None:
            loop.running = running
        loop.probe()
        allocate_with(loop.allocate_array)
        _listen(loop, consumer, bell)
        try:
            loop.run()
        finally:
            loop.close()
    except BaseException as error:
        words = traceback.format_exc()[-8000:]
        with contextlib.suppress(OSError):
            link.send(wire.LAST_WORDS + words.encode(errors="replace"))
        if not isinstance(error, EOFError | ConnectionError):  # then the consumer is gone, most likely
            raise
    finally:
        link.close()


def _prepare(setup: dict[str, Any]) -> None:
    """Make this process resemble its consumer."""
    sys.path[:] = setup["path"]
    sys.argv[:] = setup["argv"]
    os.environ.clear()
    os.environ.update(setup["environ"])
    with contextlib.suppress(OSError):
        os.chdir(setup["folder"])
    words = setup["seed"].generator().integers(2**32, size=4, dtype=np.uint32)
    np.random.seed(words)  # noqa: NPY002  # the state that generators use which know no other
    random.seed(words.tobytes())


def _watch(consumer: tuple[int, str]) -> int | None:
    pid, started = consumer
    descriptor = watch(pid)
    if start_time(pid) != started:
        raise EOFError
    return descriptor


def _listen(loop: ProcessLoop, consumer: int | None, bell: int) -> None:
    """Start the thread that waits for the bell and for the end of the consumer."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    if consumer is not None:
        poll.register(consumer, select.POLLIN)

    def listen() -> None:
        rung: set[int] = set()
        while True:
            # When the main thread is about to send anyway, look again a millisecond later whether it did.
            for descriptor, _ in poll.poll(1 if rung else None):
                # The consumer alone holds the other end of the bell; its end is that of the consumer.
                if descriptor == consumer or not (numbers := os.read(bell, 4096)):
                    os._exit(1)
                rung.update(array("Q", numbers))
            rung = {number for number in rung if not loop.answer(number)}

    start_thread(threading.Thread(target=listen, name="pescador-listener", daemon=True))
