"""The loop of a worker that is an actor of Ray, and the queues that join it with Ray's threads.

Two of Ray's threads come here. One calls ``obey`` with commands, which go into the :class:`Mailbox`. The
other one runs the streaming generator: it takes messages from the :class:`Outbox`, and is *idle* when it
waits there. If it is idle, the loop sends each item at once; if not, it packs what it makes.
"""

from __future__ import annotations

import heapq
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from ...exceptions import WorkerError
from ..protocol.messages import Extent
from ..system.shared_memory import Bytes
from ..worker.encoding_loop import EncodingLoop
from .records import ActorRecords

__all__ = ["ActorLoop", "Batch", "Command", "Mailbox", "Outbox"]

# What goes to Ray as one object: messages until they have so many bytes.
BATCH_BYTES = 1 << 23

Command = tuple[bytes, tuple[Any, ...]]
"""The pickle of a command, and references to objects, which are its last arguments."""


class Batch(NamedTuple):
    """What goes to Ray as one object."""

    messages: list[bytes]
    numbers: list[int]  # of the records,
    memory: list[pickle.PickleBuffer]  # and what they hold: in Ray's hands, buffers that are not pickled


class Mailbox:
    """Commands in the order in which they were sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._early: list[tuple[int, int, list[Command]]] = []  # a heap of those that came before their turn
        self._next = 0
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def put(self, number: int, commands: list[Command]) -> None:
        """Take the call with this number; called by any thread of Ray."""
        with self._lock:
            heapq.heappush(self._early, (number, id(commands), commands))
            while self._early and self._early[0][0] == self._next:
                for command in heapq.heappop(self._early)[-1]:
                    self._commands.put(command)
                self._next += 1

    def get(self, block: bool) -> Command | None:
        """Return the next command; None if there is none and `block` is false."""
        try:
            return self._commands.get(block)
        except queue.Empty:
            return None


class Outbox:
    """Messages that wait for Ray.

    Attributes
    ----------
    is_idle : bool
        Whether Ray's thread waits for a message, and none is on its way to it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[tuple[bytes, list[tuple[int, Bytes]]]] = deque()
        self._is_closed = False
        self.is_idle = False

    def put(self, message: bytes, records: list[tuple[int, Bytes]]) -> None:
        """Add a message and its records."""
        with self._changed:
            self._messages.append((message, records))
            self.is_idle = False
            self._changed.notify()

    def close(self) -> None:
        """Have :meth:`take` return None when all was taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def take(self, flush: Callable[[], None]) -> Batch | None:
        """Wait for messages; None when there will be no more.

        `flush` is called while this is idle, and has the loop send what is pending. It is not called earlier,
        or what the loop adds between the two would wait for the item after it.
        """
        with self._changed:
            self.is_idle = not self._messages
        if self.is_idle:
            flush()
        with self._changed:
            while not self._messages:
                if self._is_closed:
                    return None
                self._changed.wait()
            batch = Batch([], [], [])
            n_bytes = 0
            while self._messages and n_bytes < BATCH_BYTES:
                message, records = self._messages.popleft()
                batch.messages.append(message)
                n_bytes += len(message)
                for number, memory in records:
                    batch.numbers.append(number)
                    batch.memory.append(pickle.PickleBuffer(memory.data))
                    n_bytes += memory.nbytes
            return batch


class ActorLoop(EncodingLoop):
    """The loop of an actor."""

    not_found_hint = (
        "Can all that it refers to be imported there? Ray brings it along: "
        "runtime_env={'py_modules': [...]}, or {'working_dir': ...}, or {'pip': [...]}"
    )

    def __init__(self, mailbox: Mailbox, outbox: Outbox) -> None:
        self._memory = ActorRecords()
        super().__init__(self._memory)
        self._mailbox = mailbox
        self._outbox = outbox
        self.commands.update(segment=self._add_segment)

    def next_command(self, block: bool) -> tuple[Any, ...] | None:
        command = self._mailbox.get(block)
        if command is None:
            return None
        data, references = command
        return (*pickle.loads(data), *references)

    def _add_segment(self, number: int, n_bytes: int, reference: ray.ObjectRef) -> None:
        """Map a segment: all workers of a node share its memory, which is read-only."""
        try:
            memory: Bytes = ray.get(reference)
            assert memory.nbytes == n_bytes
        except Exception as error:  # raised when a recipe refers to it
            failure = WorkerError(f"arrays of a recipe did not reach this worker: {error}")
            self._shelf.add_memory(number, failure)
        else:
            self._shelf.add_memory(number, memory)

    def _add(
        self, number: int, schema: int, body: bytes, n_record_bytes: int = 0, placed: Sequence[Extent] = ()
    ) -> None:
        super()._add(number, schema, body, n_record_bytes, placed)
        if self._outbox.is_idle:
            self._flush_if_any()

    def _flush_if_enough(self, number: int) -> None:
        super()._flush_if_enough(number)
        if self._outbox.is_idle:
            self._flush_if_any()

    def _flush_if_any(self) -> None:
        if self._pending.n_items:
            self._flush()

    def _is_due(self) -> bool:
        return self._outbox.is_idle

    def _put(self, message: list[bytes], extents: Sequence[Extent]) -> None:
        records = [(extent.segment, self._memory.take(extent.segment)) for extent in extents]
        self._outbox.put(b"".join(message), records)
