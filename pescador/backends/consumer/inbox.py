"""What comes from a worker process: entries of messages, and the items that are made of them.

And what goes there besides: what a recipe needs, and that records are free again.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from ...opening import State
from ...seeding import Seed
from ..protocol import messages
from ..protocol.codec import ALIGNED_BYTES, Decoder, aligned_body
from ..protocol.errors import load_error
from ..protocol.messages import NOWHERE, AnyExtent
from ..protocol.pickling import unpickled
from ..protocol.transport import MAX_EXTENTS, ConsumerRecords
from ..system.shared_memory import Bytes
from .recipes import Part, Recipe
from .remote_stream import End, Failure, RemoteStream, Snapshot
from .segments import Segment
from .worker_handle import WorkerHandle

__all__ = ["Inbox"]


class Inbox(WorkerHandle):
    """A worker process, as far as items come from it.

    Messages are taken by the thread that reads; the queues of streams are emptied by those that take items.
    """

    _records: ConsumerRecords

    @property
    def worker_name(self) -> str:
        """Which worker it is, for messages."""
        return f"worker process {self.statistics.pid}"

    def __init__(self, stall_timeout: float | None) -> None:
        super().__init__(stall_timeout)
        self._decoder = Decoder()
        self._sent: set[int] = set()  # numbers of the segments and parts that the worker has
        self._supplying = threading.RLock()

    @abstractmethod
    def command(self, name: str, *arguments: Any, handles: tuple[Any, ...] = ()) -> None:
        """Send a command, and handles that become its last arguments."""

    def open(self, stream: RemoteStream[Any], recipe: Recipe, seed: Seed, max_iter: int | None) -> None:
        self._supply(recipe.needs)
        super().open(stream, recipe.data, seed, max_iter)

    def _supply(self, needs: Iterable[Part | Segment]) -> None:
        """Send what a recipe needs, and the worker does not have."""
        with self._supplying:
            for need in needs:
                if need.number not in self._sent:
                    self._supply(need.needs)
                    self.command(*need.command, handles=need.handles)
                    self._sent.add(need.number)

    def drop(self, numbers: Iterable[int]) -> None:
        """Have the worker drop segments and parts, if it has them."""
        dropped = self._sent.intersection(numbers)
        if dropped:
            self._sent -= dropped
            self.command("drop", list(dropped))

    def credit(self, number: int, n_items: int) -> None:
        self._return_released("credit", number, n_items)

    def _return_released(self, *command: Any) -> None:
        """Tell the worker which records were released, if there are any, and with the last a `command`."""
        extents = self._records.take_released()
        while len(extents) == MAX_EXTENTS:
            self.command("free", messages.pack_extents(extents))
            extents = self._records.take_released()
        if extents:
            self.command("free", messages.pack_extents(extents), *command)
        elif command:
            self.command(*command)

    def _return_many_released(self) -> None:
        """Tell the worker which records were released, if it might wait for them."""
        if self._records.n_released >= self._records.release_bound:
            self._return_released()

    def _take_items(self, message: memoryview) -> None:
        waited, copied, entries = messages.unpack_items(message)
        self.statistics.worker_wait = self._before.worker_wait + waited
        self.statistics.copied = self._before.copied + copied
        streams = self.streams
        for number, schema, inline, extent in entries:
            stream = streams.get(number)
            found: list[Any] = [(schema, body, extent) for body in inline]
            if schema >= messages.SNAPSHOT:
                found = [self._mark(schema, body, extent) for body in inline]
            if stream is None:
                for entry in found:
                    self.discard(entry)
                continue
            if schema >= messages.SNAPSHOT:
                for mark in found:
                    stream.receive_mark(mark)
            else:
                stream.n_received += len(found)
                stream.queue.extend(found)
                if stream.adapts:
                    stream.widen(_size(schema, inline, extent))
            if stream.is_closed:  # meanwhile, and perhaps before it could drop this
                stream.drop()

    def _mark(self, schema: int, body: memoryview, extent: AnyExtent) -> End | Failure | Snapshot:
        """Return what an entry says that is no item."""
        if schema == messages.END:
            return End()
        content = unpickled(self._body(body, extent))
        if schema == messages.SNAPSHOT:
            state: State = content
            return Snapshot(state)
        return Failure(load_error(content, self.worker_name))

    def _body(self, body: memoryview | bytes, extent: AnyExtent) -> Any:
        """Return the memory of an item, which belongs to it alone."""
        return bytearray(body) if extent is NOWHERE else self._records.view(extent)

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
        memory = self._records.view(extent)
        self._return_many_released()
        return memory

    def discard(self, entry: Any) -> None:
        if type(entry) is not tuple:
            return
        schema, body, extent = entry
        for record in messages.unpack_table(body)[0] if schema & messages.SCATTERED else [extent]:
            if record[0]:
                self._records.release(record)


def _size(schema: int, inline: list[Any], extent: AnyExtent) -> int:
    """Return the size of an item."""
    size = sum(map(len, inline)) // max(len(inline), 1) + extent[2]
    if schema < messages.SNAPSHOT and schema & messages.SCATTERED:
        size += sum(record[2] for record in messages.unpack_table(inline[0])[0])
    return size
