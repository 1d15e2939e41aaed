"""What comes from a worker process: entries of messages, and the items that are made of them."""

from __future__ import annotations

from typing import Any

from ...opening import State
from ..protocol import messages
from ..protocol.codec import ALIGNED_BYTES, Decoder, aligned_body
from ..protocol.errors import load_error
from ..protocol.messages import NOWHERE, AnyExtent
from ..protocol.pickling import unpickled
from ..protocol.transport import Receiver
from ..system.shared_memory import Bytes
from .remote_stream import End, Failure, RemoteStream, Snapshot
from .worker_handle import WorkerHandle

__all__ = ["Inbox"]


class Inbox(WorkerHandle):
    """A worker process, as far as items come from it.

    Messages are taken by the thread that reads; the queues of streams are emptied by those that take items.
    """

    _receiver: Receiver
    _decoder: Decoder

    def _return_many_released(self) -> None:
        """Tell the worker which records were released, if it might wait for them."""
        raise NotImplementedError

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
        return Failure(load_error(content, f"worker process {self.statistics.pid}"))

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


def _size(schema: int, inline: list[Any], extent: AnyExtent) -> int:
    """Return the size of an item."""
    size = sum(map(len, inline)) // max(len(inline), 1) + extent[2]
    if schema < messages.SNAPSHOT and schema & messages.SCATTERED:
        size += sum(record[2] for record in messages.unpack_table(inline[0])[0])
    return size
