"""The loop of a worker process.

It obeys commands and runs generators (see :mod:`.loop`). The bodies of large items go where the transport
puts them. What is sent is a message with the small items, and with the places of the large ones; it stays
*pending* until one of these holds:

- it has as much as a message should hold, or is PENDING_SECONDS old when a slice of work ends;
- no stream has credits left, so the loop is about to wait;
- the consumer *wants* a stream of which something is pending.

A consumer says what it wants before it sleeps, by a command, which the main thread sees when a slice ends;
then what comes first will wake it. When it has slept for a while, a generator may have been running for as
long. Then it says so again, through the wake-up socket, which a thread of this worker listens to: that thread
sends what is pending at once (:meth:`ProcessLoop.wake_up`), or has the main thread send the next item of that
stream as soon as it is made. Both ways carry the same: the number of the stream, 0 for any, and how many
messages had come by then. If more were sent, one is under way, which will wake the consumer: it wants nothing
of this worker before it has seen that one. To wake it for something else would cost more time than its items
are worth.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ...core import Streamer
from ...exceptions import PescadorError, WorkerError
from ...opening import State
from ..protocol import messages
from ..protocol.backoff import Backoff
from ..protocol.codec import Encoder, Layout, Schema
from ..protocol.connection import Connection, Ended
from ..protocol.errors import dump_error
from ..protocol.messages import NOWHERE, Extent, Record
from ..protocol.pickling import pickled
from ..protocol.transport import Sender
from ..protocol.world import World, seed_globals
from ..system.shared_memory import Bytes
from .loading import Shelf
from .loop import Stop, Unsendable, WorkerLoop
from .ownership import Ownership
from .pending import Pending

__all__ = ["ProcessLoop"]

T = TypeVar("T")

PENDING_ITEMS = 256
PENDING_SECONDS = 1e-3
# Half of what streams may be ahead at most, or nothing would be made while a message is under way.
PENDING_RECORD_BYTES = 1 << 22

# Errors of a recipe that is loaded where not all is there of which it was made.
_NOT_FOUND = AttributeError, ImportError


class ProcessLoop(WorkerLoop):
    """The loop of a worker process."""

    def __init__(self, connection: Connection, sender: Sender, running: memoryview | None = None) -> None:
        super().__init__(running)
        # Guards what is pending, what is wanted, and sending, for the listening thread may send as well.
        self._lock = threading.RLock()
        self.copied = 0  # bytes
        self._connection = connection
        self._backoff = Backoff()
        self._sender = sender
        self._encoder = Encoder()
        self._shelf = Shelf()
        self._pending = Pending()
        self._last_sent = 0.0  # when the last message with items was sent,
        self._n_sent = 0  # and how many there were
        self._at_once = False  # the consumer has waited so long that what it wants gets a message of its own
        self._ownership = Ownership()
        self.commands.update(
            segment=self._shelf.add_segment,
            part=self._shelf.add_part,
            drop=self._shelf.drop,
            world=World.enter,
            seed=seed_globals,
            free=self._free,
            want=self._want,
        )

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
        message, handles = received
        return (*pickle.loads(message), *handles)

    def _free(self, extents: bytes, *command: Any) -> None:
        """Take back memory, and obey the command that came with that, if one did."""
        self._sender.free(messages.unpack_extents(extents))
        if command:
            self.obey(*command)

    def _want(self, number: int, n_received: int) -> None:
        """Take note of what the consumer wants. Until something is sent, it may want more, but not less.

        The main thread and the listener come to hear of it in any order, and several threads of the consumer
        may each want something.
        """
        with self._lock:
            if n_received == self._n_sent:
                self.wanted = number if self.wanted in (None, number) else 0

    def obey_commands(self, block: bool) -> None:
        super().obey_commands(block)
        if self._pending.n_items and self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """Whether to send what is pending now that a slice has ended."""
        if self.wanted is None:
            return time.perf_counter() - self._last_sent > PENDING_SECONDS
        return not self.wanted or self.wanted in self._pending.streams

    def load(self, recipe: bytes) -> Streamer[Any]:
        self._sender.prepare()
        try:
            return self._shelf.load(recipe)
        except BaseException as error:
            hint = " Can all that it refers to be imported there?" if isinstance(error, _NOT_FOUND) else ""
            raise WorkerError(
                f"a recipe can't be loaded in worker process {os.getpid()}: "
                f"{type(error).__name__}: {error}.{hint}"
            ) from error

    def close(self) -> None:
        """Drop all recipes, and with them the pools of those that run in the background themselves."""
        self._shelf.clear()
        with self._lock:  # the listener may be about to send
            self._begin_pending()
            self._sender.close()

    # Items

    def send(self, number: int, item: Any) -> None:
        try:
            layout, parts = self._encoder.encode(item)
        except BaseException as error:
            raise Unsendable from error
        sole: set[int] = set()
        if self._sender.given_out and isinstance(layout, Schema):
            sole = self._ownership.sole(item, parts)
            if not number:  # this was the probe
                return
        if layout.is_new and isinstance(layout, Schema):
            self._define(layout)
        if sole and isinstance(layout, Schema):
            self._send_scattered(number, layout, parts, sole)
        else:
            self._send(number, layout.number, layout, parts)

    def _define(self, schema: Schema) -> None:
        """Tell the consumer of a schema."""
        try:
            definition = schema.definition()
        except BaseException as error:  # the metadata of a dtype can't be pickled
            raise Unsendable from error
        schema.is_new = False
        with self._lock:
            self.flush()
            self._put([messages.SCHEMA, definition], [])

    def probe(self) -> None:
        self._sender.given_out[0] = NOWHERE
        super().probe()
        self._sender.given_out.clear()

    def _send_scattered(self, number: int, schema: Schema, parts: Sequence[Any], sole: set[int]) -> None:
        """Send an item with arrays that were made in the memory of the transport: those are not copied."""
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
        with self._lock:
            self._add(number, schema.number | messages.SCATTERED, body, schema.n_bytes)
        # The arrays of an item that is begun when there is no room would have to be copied.
        self._wait_for(lambda: self._sender.has_room_for(placed))

    def send_end(self, number: int) -> None:
        with self._lock:
            self._add(number, messages.END, b"")

    def send_snapshot(self, number: int, state: State) -> None:
        self._send(number, messages.SNAPSHOT, *pickled(state))

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
            with self._lock:
                self._add(number, schema, body)
        else:
            record = self._sender.allocate(n_bytes) or self._wait_for_room(n_bytes)
            layout.write(parts, record)
            with self._lock:
                self._pending.add_record(number, schema, record.extent)
                self._flush_if_enough(number)

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
            if self.wanted is not None:
                break
            self.obey_commands(block=True)
        return found

    def _add(self, number: int, schema: int, body: bytes, n_record_bytes: int = 0) -> None:
        """Add what travels in the message to what is pending. The lock is held."""
        pending = self._pending
        if pending.n_items and (
            pending.n_bytes + len(body) > self._sender.pending_bytes or pending.n_items >= PENDING_ITEMS
        ):
            self._flush()
        self._pending.add(number, schema, body)
        if n_record_bytes or self._at_once:
            self._pending.n_record_bytes += n_record_bytes
            self._flush_if_enough(number)

    def _flush_if_enough(self, number: int) -> None:
        """Send what is pending if it is enough, or the consumer wants the stream that was just added to."""
        is_urgent = self._at_once and self.wanted in (0, number)
        if is_urgent or self._pending.n_record_bytes >= PENDING_RECORD_BYTES:
            self._flush()

    def flush(self) -> None:
        """Send what is pending."""
        with self._lock:
            if self._pending.n_items:
                self._flush()

    def _flush(self) -> None:
        """Send what is pending, which is not nothing. The lock is held."""
        pending = self._pending
        self._begin_pending()
        self._put(pending.message(self.waited, self.copied), pending.extents)

    def _put(self, message: list[bytes], extents: list[Extent]) -> None:
        self._sender.send(message, extents)
        while not self._connection.flush():
            # Commands are obeyed meanwhile, so that a consumer which does not read can still close.
            self._connection.wait(writable=True)
            super().obey_commands(block=False)

    def wake_up(self, number: int, n_received: int) -> bool:
        """Send what is pending if the consumer wants it; else have what it wants sent as soon as it is made.

        Called by the listening thread. Returns False if it is to be called again, because the main thread is
        sending, or the connection is full.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            pending = self._pending
            if not self._connection.flush():
                return False
            self._want(number, n_received)
            if n_received != self._n_sent:
                return True
            if not pending.n_items or (self.wanted and self.wanted not in pending.streams):
                self._at_once = True
            else:
                self._begin_pending()
                self._sender.send(pending.message(self.waited, self.copied), pending.extents)
                return self._connection.flush()
        except OSError:  # the consumer is gone, which the main thread will learn
            self._begin_pending()
        finally:
            self._lock.release()
        return True

    def _begin_pending(self) -> None:
        """Begin another message; the one before was sent, or is dropped. The lock is held."""
        self._pending = Pending()
        self._last_sent = time.perf_counter()
        self._n_sent += 1
        self.wanted, self._at_once = None, False
