"""The consumer's half: frames that it receives, and the door at which a worker shows its secret."""

from __future__ import annotations

import contextlib
import hmac
import math
import time
from collections import deque
from typing import Any

import numpy as np
import zmq

from ...exceptions import WorkerError
from ..protocol import messages
from ..protocol.connection import Connection, Message
from ..protocol.messages import AnyExtent
from ..protocol.transport import Receiver
from ..system.shared_memory import Bytes, keep_freed_memory, private
from .frames import BUDGET, FRAME_BYTES

__all__ = ["ZMQReceiver"]

_NOTHING: Bytes = np.empty(0, np.uint8)


class ZMQReceiver(Receiver):
    """The consumer's half."""

    def __init__(
        self,
        context: zmq.Context[Any],
        socket: zmq.Socket[Any],
        door: zmq.Socket[Any],
        secret: bytes,
        connection: Connection,
        death: int | None,
    ) -> None:
        super().__init__(connection)
        keep_freed_memory()
        self._context = context
        self._socket = socket
        self._door = door
        self._secret = secret
        self._message = b""
        self._coming: deque[AnyExtent] = deque()  # records of this message that did not come yet
        self._begun = _NOTHING  # the next of them,
        self._n_bytes = 0  # and how much of it is there
        self._records: dict[int, Bytes] = {}
        self.release_bound = BUDGET // 8
        self._waits_for_room = False  # for what is queued in the connection
        self._poller = zmq.Poller()
        for waited_for in (socket, door, connection.socket, death):
            if waited_for is not None:
                self._poller.register(waited_for, zmq.POLLIN)

    def receive(self) -> Message | None:
        try:
            if not self._coming:
                self._receive_message()
            while self._coming:
                self._receive_frame()
            return self._message, []
        except zmq.Again:
            pass
        return self.connection.receive(block=False)

    def _receive_message(self) -> None:
        # As bytes, for pyzmq swallows a Ctrl-C that comes when it frees a Frame.
        part = message = self._socket.recv(zmq.NOBLOCK)
        if not self._door.closed:
            self._poller.unregister(self._door)
            self._door.close(0)
        while len(part) == FRAME_BYTES:
            part = self._socket.recv()
            message += part
        self._message = message
        if self._socket.rcvmore:
            self._coming.extend(messages.unpack_extents(self._socket.recv()))

    def _receive_frame(self) -> None:
        """Receive a frame of the record that comes next."""
        frame = np.frombuffer(self._socket.recv(zmq.NOBLOCK, copy=False).buffer, np.uint8)
        number, _, n_bytes = self._coming[0]
        if not self._n_bytes:
            self._begun = private(n_bytes)
        self._begun[self._n_bytes : self._n_bytes + len(frame)] = frame
        self._n_bytes += len(frame)
        if self._n_bytes == n_bytes:
            self._records[number] = self._begun
            self._begun, self._n_bytes = _NOTHING, 0
            self._coming.popleft()

    def wait(self, timeout: int) -> bool:
        deadline = time.monotonic() + timeout / 1000
        while True:
            if self._waits_for_room != self.connection.has_unsent:
                self._waits_for_room = not self._waits_for_room
                events = zmq.POLLIN | (zmq.POLLOUT if self._waits_for_room else 0)
                self._poller.register(self.connection.socket, events)
            ready = dict(self._poller.poll(math.ceil(1000 * max(0, deadline - time.monotonic()))))
            if not ready:
                return False
            if self._door in ready:
                self._answer_the_door()
                del ready[self._door]
            if ready.get(self.connection.socket.fileno()) == zmq.POLLOUT:
                del ready[self.connection.socket.fileno()]
                with contextlib.suppress(ConnectionError):  # it is gone, which the next look finds
                    self.connection.flush()
            if ready:
                return True

    def _answer_the_door(self) -> None:
        version, number, *_, password = self._door.recv_multipart()
        status = (b"200", b"OK") if hmac.compare_digest(password, self._secret) else (b"400", b"no")
        self._door.send_multipart([version, number, *status, b"", b""])

    def view(self, extent: AnyExtent) -> Bytes:
        memory = self._records.pop(extent[0], _NOTHING)
        if len(memory) != extent[2]:
            raise WorkerError(f"a worker sent {len(memory)} bytes of a record of {extent[2]}")
        super().release(extent)
        return memory

    def release(self, extent: AnyExtent) -> None:
        del self._records[extent[0]]
        super().release(extent)

    def close(self) -> None:
        self._records.clear()
        self._context.destroy(0)
