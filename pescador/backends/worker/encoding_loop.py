"""The loop of a worker whose items are encoded and sent, by whatever way.

It obeys commands and runs generators (see :mod:`.loop`). The bodies of large items go where the transport
puts them. What is sent is a message with the small items, and with the places of the large ones; it stays
*pending* until it has as much as a message should hold, until no stream has credits left, so that the loop is
about to wait, or until the kind of worker says so.
"""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ...core import Streamer
from ...exceptions import PescadorError, WorkerError
from ...opening import State
from ..protocol import messages
from ..protocol.codec import Encoder, Layout, Schema
from ..protocol.errors import dump_error
from ..protocol.messages import NOWHERE, Extent, Record
from ..protocol.pickling import pickled
from ..protocol.script import RecipeData
from ..protocol.transport import WorkerRecords
from ..protocol.world import seed_globals
from ..system.shared_memory import keep_freed_memory
from .loading import Shelf
from .loop import Stop, Unsendable, WorkerLoop
from .ownership import Ownership
from .pending import Pending

__all__ = ["PENDING_RECORD_BYTES", "PENDING_SECONDS", "EncodingLoop"]

T = TypeVar("T")

PENDING_ITEMS = 256
PENDING_SECONDS = 1e-3
STARVING_SECONDS = 8e-3  # where the consumer starves
# Half of what streams may be ahead at most, or nothing would be made while a message is under way.
PENDING_RECORD_BYTES = 1 << 22

# Errors of a recipe that is loaded where not all is there of which it was made.
_NOT_FOUND = AttributeError, ImportError


class EncodingLoop(WorkerLoop):
    """The loop of a worker whose items are encoded."""

    not_found_hint = "Can all that it refers to be imported there?"

    def __init__(self, records: WorkerRecords, running: memoryview | list[int] | None = None) -> None:
        super().__init__(running)
        keep_freed_memory()
        # Guards what is pending, what is wanted, and sending, for another thread may send as well.
        self._lock = threading.RLock()
        self.copied = 0  # bytes
        self._records = records
        self._encoder = Encoder()
        self._shelf = Shelf()
        self._pending = Pending()
        self._last_sent = 0.0  # when the last message with items was sent,
        self._n_sent = 0  # and how many there were
        self._starves = False  # whether the consumer did when it last wanted something
        self._at_once = False  # the consumer has waited so long that what it wants gets a message of its own
        self._ownership = Ownership()
        self.commands.update(
            part=self._shelf.add_part,
            drop=self._shelf.drop,
            seed=seed_globals,
            free=self._free,
            want=self._want,
        )

    @abstractmethod
    def _put(self, message: list[bytes], extents: list[Extent]) -> None:
        """Send a message, given in parts, with its records. The lock is held."""

    # Commands

    def _free(self, extents: bytes, *command: Any) -> None:
        """Take back memory, and obey the command that came with that, if one did."""
        self._records.free(messages.unpack_extents(extents))
        if command:
            self.obey(*command)

    def _want(self, number: int, n_received: int, starves: bool = False) -> None:
        """Take note of what the consumer wants. Until something is sent, it may want more, but not less.

        The main thread and the listener come to hear of it in any order, and several threads of the consumer
        may each want something.
        """
        with self._lock:
            if n_received == self._n_sent:
                self.wanted = number if self.wanted in (None, number) else 0
                self._starves = starves

    def obey_commands(self, block: bool) -> None:
        super().obey_commands(block)
        if self._pending.n_items and self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """Whether to send what is pending now that a slice has ended."""
        if self._starves or self.wanted is None:
            age = time.perf_counter() - self._last_sent
            if age < (STARVING_SECONDS if self._starves else PENDING_SECONDS):
                return False
        return not self.wanted or self.wanted in self._pending.streams

    def keeps(self, number: int) -> bool:
        return number in self._pending.streams

    def load(self, recipe: RecipeData) -> Streamer[Any]:
        self._records.prepare()
        try:
            return self._shelf.load(recipe)
        except BaseException as error:
            hint = f" {self.not_found_hint}" if isinstance(error, _NOT_FOUND) else ""
            raise WorkerError(
                f"a recipe can't be loaded in worker process {os.getpid()}: "
                f"{type(error).__name__}: {error}.{hint}"
            ) from error

    def close(self) -> None:
        """Drop all recipes, and with them the pools of those that run in the background themselves."""
        self._shelf.clear()
        with self._lock:  # the listener may be about to send
            self._begin_pending()
            self._records.close()

    # Items

    def send(self, number: int, item: Any) -> None:
        try:
            layout, parts = self._encoder.encode(item)
        except BaseException as error:
            raise Unsendable from error
        sole: set[int] = set()
        records = self._records
        if (records.given_out or layout.n_bytes > records.gives_from) and isinstance(layout, Schema):
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
        self._records.given_out[0] = NOWHERE
        super().probe()
        self._records.given_out.clear()

    def _send_scattered(self, number: int, schema: Schema, parts: Sequence[Any], sole: set[int]) -> None:
        """Send an item with arrays that were made in the memory of the transport: those are not copied."""
        placed: list[Extent] = []

        def place(part: Any, field: Any) -> Extent:
            extent = self._records.give(part) if id(part) in sole else NOWHERE
            if extent is NOWHERE and part.nbytes > self._records.small_bytes:
                record = self._records.allocate(part.nbytes) or self._wait_for_room(part.nbytes)
                np.copyto(field.view(record.memory, 0), part, casting="no")
                self.copied += part.nbytes
                extent = record.extent
            if extent is not NOWHERE:
                placed.append(extent)
            return extent

        try:
            body = schema.scatter(parts, place)
        except PescadorError:  # there is no memory for all of it
            self._records.free(placed)
            raise
        with self._lock:
            self._add(number, schema.number | messages.SCATTERED, body, schema.n_bytes, placed)
        # The arrays of an item that is begun when there is no room would have to be copied.
        self._wait_for(lambda: self._records.has_room_for(placed))

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
        if n_bytes <= self._records.small_bytes:
            body = layout.join(parts)
            with self._lock:
                self._add(number, schema, body)
        else:
            record = self._records.allocate(n_bytes) or self._wait_for_room(n_bytes)
            layout.write(parts, record)
            with self._lock:
                self._pending.add_record(number, schema, record.extent)
                self._flush_if_enough(number)

    def _wait_for_room(self, n_bytes: int) -> Record:
        """Return memory for a record, when some is free."""
        record = self._wait_for(lambda: self._records.allocate(n_bytes))
        return record or self._records.allocate_apart(n_bytes)

    def _wait_for(self, find: Callable[[], T]) -> T:
        """Return what is found when the consumer has given back enough, or nothing if it waits, too."""
        while not (found := find()):
            self.flush()
            if self.wanted is not None:
                break
            self.obey_commands(block=True)
        return found

    def _add(
        self, number: int, schema: int, body: bytes, n_record_bytes: int = 0, placed: Sequence[Extent] = ()
    ) -> None:
        """Add what travels in the message, and its records, to what is pending. The lock is held."""
        pending = self._pending
        if pending.n_items and (
            pending.n_bytes + len(body) > self._records.pending_bytes or pending.n_items >= PENDING_ITEMS
        ):
            self._flush()
        self._pending.add(number, schema, body)
        if n_record_bytes or self._at_once:
            self._pending.extents += placed
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

    def _begin_pending(self) -> None:
        """Begin another message; the one before was sent, or is dropped. The lock is held."""
        self._pending = Pending()
        self._last_sent = time.perf_counter()
        self._n_sent += 1
        self.wanted, self._at_once = None, False
