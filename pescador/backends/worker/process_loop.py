"""The loop of a worker process.

It obeys commands and runs generators (see :mod:`.worker`). Small items are packed and sent together; large
ones go where the transport puts them, and only their place is sent.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ...core import Streamer
from ...exceptions import PescadorError, WorkerError
from ...seeding import Seed
from ..protocol import messages
from ..protocol.codec import Encoder, Layout, Schema
from ..protocol.connection import Backoff, Connection, Ended, close_all
from ..protocol.errors import dump_error
from ..protocol.messages import NOWHERE, Extent, Record
from ..protocol.pickling import pickled
from ..protocol.transport import Sender
from ..protocol.world import World, seed_globals
from ..system.shared_memory import Bytes
from .loading import Shelf
from .loop import Stop, Unsendable, WorkerLoop
from .ownership import references
from .pending import Pending

__all__ = ["ProcessLoop"]

T = TypeVar("T")

# A pack is sent when it holds so much, or as much as the transport says, or is so old. Of large items it
# holds half of what streams may be ahead, for with more nothing would be made while it is under way. While
# the consumer waits for a stream of which the pack has nothing its age does not count, for to wake a
# consumer in vain costs more than the items it would get.
PENDING_ITEMS = 256
PENDING_RECORD_BYTES = 1 << 22
PENDING_SECONDS = 1e-3

# Bodies of a pack that are more than this go through the memory of the transport, if there is one.
INLINE_BYTES = 1 << 12

# Errors of a recipe that is loaded where not all is there of which it was made.
_NOT_FOUND = AttributeError, ImportError

ANY_STREAM = range(1, sys.maxsize)


class ProcessLoop(WorkerLoop):
    """The loop of a worker process."""

    def __init__(self, connection: Connection, sender: Sender) -> None:
        super().__init__()
        self._connection = connection
        self._backoff = Backoff()
        self._sender = sender
        self._encoder = Encoder()
        self._shelf = Shelf()
        # Guards the pack and what is sent, for the waiting thread sends when the wakeup rings.
        self.lock = threading.RLock()
        self._pending = Pending()
        self.copied = 0  # bytes
        # How many references there are to an item, and to an array in it, that nobody else refers to.
        self._sole_owner: tuple[int, tuple[int, int]] | None = None
        self._flushed = 0.0  # when the last pack was sent
        self._n_sent = 0  # messages
        self._wait_mark = -1  # how many of them had come when the consumer last waited,
        self._waited_for = 0  # and for which stream; 0: for any
        self._rung: Sequence[int] = ()  # for which streams the wakeup rang while there was nothing to send

    # Commands

    def next_command(self, block: bool) -> tuple[Any, ...] | None:
        connection = self._connection
        try:
            received = connection.receive(block=False)
            if received is None and block:
                received = self._backoff.wait(lambda: connection.receive(block=False), connection.receive)
        except Ended:  # the consumer is gone, or wants no more of this worker
            return ("stop",)
        if received is None:
            return None
        message, descriptors = received
        command: tuple[Any, ...] = pickle.loads(message)
        if command[0] == "segment":
            return (*command, descriptors.pop())
        close_all(descriptors)
        return command

    def obey_segment(self, number: int, n_bytes: int, fd: int) -> None:
        """Take shared memory, to which recipes refer."""
        self._shelf.add_segment(number, n_bytes, fd)

    def obey_part(self, number: int, data: bytes) -> None:
        """Take a pickle, to which recipes refer."""
        self._shelf.add_part(number, data)

    def obey_drop(self, numbers: Sequence[int]) -> None:
        """Drop segments and parts to which no recipe refers any more."""
        self._shelf.drop(numbers)

    def obey_world(self, world: World) -> None:
        """Resemble the consumer, which an iteration begins."""
        world.enter()

    def obey_seed(self, seed: Seed) -> None:
        """Seed the global generators for an iteration."""
        seed_globals(seed)

    def obey_free(self, extents: bytes, *command: Any) -> None:
        """Take back memory, and obey the command that comes with that."""
        self._sender.free(messages.unpack_extents(extents))
        if command:
            self.obey(*command)

    def obey_wait(self, n_received: int, number: int) -> None:
        """Take note that the consumer waits for a stream (0: for any), or has waited."""
        self._wait_mark = n_received
        self._waited_for = number

    def obey_commands(self, block: bool) -> None:
        super().obey_commands(block)
        if self._pending.n_items and self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """Whether what is packed is to be sent at once."""
        if self._wait_mark == self._n_sent:  # the consumer waits, and nothing is under way that would wake it
            return not self._waited_for or self._waited_for in self._pending.streams
        return time.perf_counter() - self._flushed > PENDING_SECONDS

    def load(self, recipe: bytes) -> Streamer[Any]:
        self._sender.prepare()
        try:
            return self._shelf.load(recipe)
        except BaseException as error:
            hint = " Is everything that it imports importable there?" if isinstance(error, _NOT_FOUND) else ""
            raise WorkerError(
                f"a recipe can't be loaded in worker process {os.getpid()}: "
                f"{type(error).__name__}: {error}.{hint}"
            ) from error

    def close(self) -> None:
        """Drop all recipes, and with them the pools of those that run in the background themselves."""
        self._shelf.clear()
        with self.lock:  # the listener may be about to send
            self._begin_pending()
            self._sender.close()

    # Items

    def send(self, number: int, item: Any) -> None:
        try:
            layout, parts = self._encoder.encode(item)
        except BaseException as error:
            raise Unsendable from error
        if self._sender.given_out:
            owners = sys.getrefcount(item), references(parts)
            if self._sole_owner is None:  # see probe()
                self._sole_owner = owners[0], owners[1][0]
                return
            n_item, sole = self._sole_owner
            if n_item == owners[0] and sole in owners[1] and isinstance(layout, Schema):
                self._send_scattered(number, layout, parts, [counts == sole for counts in owners[1]])
                return
        if layout.is_new and isinstance(layout, Schema):
            self._define(layout)
        self._send(number, layout.number, layout, parts)

    def _define(self, schema: Schema) -> None:
        """Tell the consumer of a schema."""
        try:
            definition = schema.definition()
        except BaseException as error:  # the metadata of a dtype can't be pickled
            raise Unsendable from error
        schema.is_new = False
        with self.lock:
            self.flush()
            self._put(messages.SCHEMA + definition, [])

    def probe(self) -> None:
        self._sender.given_out[0] = NOWHERE
        super().probe()
        self._sender.given_out.clear()

    def _send_scattered(
        self, number: int, schema: Schema, parts: Sequence[Any], is_sole: Sequence[bool]
    ) -> None:
        """Send an item with arrays that were made in the memory of the transport: those are not copied."""
        if schema.is_new:
            self._define(schema)
        sole = {id(part) for part, is_so in zip(parts, is_sole, strict=True) if is_so}
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
            self._add(number, schema.number | messages.SCATTERED, body)
            self._pending.n_record_bytes += schema.n_bytes
            if self._pending.n_record_bytes >= PENDING_RECORD_BYTES or number in self._rung:
                self._flush()
        # The arrays of an item that is begun when there is no room would have to be copied.
        self._wait_for(lambda: self._sender.has_room_for(placed))

    def send_end(self, number: int) -> None:
        with self.lock:
            self._add(number, messages.END, b"")
            if number in self._rung:
                self._flush()

    def send_failure(self, number: int, error: BaseException) -> None:
        if isinstance(error, Stop):
            raise error
        self._send(number, messages.FAILURE, *pickled(dump_error(error)))
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
                pending = self._pending
                pending.add_record(number, schema, record.extent)
                if pending.n_record_bytes >= PENDING_RECORD_BYTES or number in self._rung:
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
        pending = self._pending
        if pending.n_items and (
            pending.n_bytes + len(body) > self._sender.pending_bytes or pending.n_items >= PENDING_ITEMS
        ):
            self._flush()
        self._pending.add(number, schema, body)

    def flush(self) -> None:
        """Send what is packed."""
        with self.lock:
            if self._pending.n_items:
                self._flush()

    def _flush(self) -> None:
        """Send what is packed, which is not nothing. The lock is held."""
        pending = self._pending
        bodies = NOWHERE
        if INLINE_BYTES < pending.n_bytes <= self._sender.pending_bytes:  # a scattered item may have more
            record = self._sender.allocate_pending()
            if record is not None:
                record.memory[: pending.n_bytes] = np.frombuffer(b"".join(pending.bodies), np.uint8)
                bodies = record.extent
        self._begin_pending()
        self._put(pending.message(self.waited, self.copied, bodies), pending.extents)
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
            pending = self._pending
            if not self._connection.flush():
                return False
            if not (number in pending.streams or (number == 0 and pending.n_items)):
                if self._rung is not ANY_STREAM:
                    self._rung = (number,) if number else ANY_STREAM
                self.urgent = number
            elif self._sender.try_send(pending.message(self.waited, self.copied), pending.extents):
                self._begin_pending()
                self._n_sent += 1
        except OSError:  # the consumer listens no more, which the main thread will learn
            self._begin_pending()
        finally:
            self.lock.release()
        return True

    def _begin_pending(self) -> None:
        self._pending = Pending()
        self._flushed = time.perf_counter()
        self._rung = ()
