"""In processes, everything through a ZeroMQ socket on the loopback interface.

The worker introduces itself with a secret that it got from its consumer, and from then on only the
messages of that connection are looked at: ZeroMQ marks each message with the id that it gave the
connection (such ids begin with a zero byte; one that a peer chooses for itself may not). Nothing is
unpickled that anybody else sent. A message is one frame, and each record that it refers to is a frame
behind it.
"""

from __future__ import annotations

import errno
import hmac
import random
import secrets
from functools import partial
from typing import Any

import numpy as np
import zmq

from ..exceptions import ParameterError, PescadorError
from .launch import Process
from .link import Link
from .process import ProcessBackend, Receiver
from .process_worker import Sender
from .ring import ALIGNMENT
from .segment import Bytes
from .wire import Extent

__all__ = ["ZMQBackend", "ZMQReceiver", "ZMQSender"]

ADDRESS = "tcp://127.0.0.1"

# How many bytes of records may be under way; an item that is larger goes alone.
BUDGET = 1 << 26


class ZMQBackend(ProcessBackend):
    """Runs streams in processes that send their items through sockets.

    Parameters
    ----------
    start_method : {'forkserver', 'spawn', 'fork'}, optional
        How workers start.
    min_port, max_port : int
        Range from which a port is taken for each worker.
    max_tries : int
        How many ports are tried.
    copy : bool
        Whether ZeroMQ copies what it sends.
    """

    def __init__(
        self,
        start_method: str | None = None,
        min_port: int = 49152,
        max_port: int = 65535,
        max_tries: int = 100,
        copy: bool = False,
    ) -> None:
        super().__init__(start_method)
        if not 1 <= min_port <= max_port <= 65535:
            raise ParameterError(
                f"ports are from 1 to 65535, and min_port is not above max_port: got {min_port} to {max_port}"
            )
        if max_tries < 1:
            raise ParameterError(f"max_tries must be at least 1, got {max_tries}")
        self._ports = (min_port, max_port, max_tries)
        self._copy = bool(copy)

    def transport(self, link: Link, process: Process | None) -> tuple[Any, dict[str, Any], Any]:
        """Return what makes the two halves of the transport."""
        context = zmq.Context()
        try:
            socket = context.socket(zmq.ROUTER)
        except zmq.ZMQError as error:
            context.term()
            raise PescadorError(
                f"cannot open a ZeroMQ socket: {error}. Are there file descriptors left ('ulimit -n')?"
            ) from error
        try:
            port = self._bind(socket)
        except BaseException:
            socket.close(0)
            context.term()
            raise
        secret = secrets.token_bytes(32)
        options = {"address": f"{ADDRESS}:{port}", "secret": secret, "copy": self._copy}
        return ZMQSender, options, partial(ZMQReceiver, context, socket, secret)

    def _bind(self, socket: zmq.Socket[Any]) -> int:
        """Have a socket listen on a port of the range, and return that."""
        min_port, max_port, max_tries = self._ports
        ports = range(min_port, max_port + 1)
        reason = ""
        # pyzmq's bind_to_random_port would draw from the global state of `random`, which is the user's.
        for port in random.SystemRandom().sample(ports, min(max_tries, len(ports))):
            try:
                socket.bind(f"{ADDRESS}:{port}")
                return port
            except zmq.ZMQError as error:
                reason = str(error)
                if error.errno not in (zmq.EADDRINUSE, errno.EACCES):
                    break
        raise PescadorError(
            f"no free port from {min_port} to {max_port} in {max_tries} tries ({reason}); "
            "widen the range (min_port, max_port) or raise max_tries"
        )


class ZMQSender(Sender):
    """The worker's half."""

    def __init__(self, link: Link, address: str, secret: bytes, copy: bool) -> None:
        super().__init__(link)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(address)
        self._socket.send(secret)
        self._copy = copy
        self._n_records = 0
        self._records: dict[int, Bytes] = {}  # to be sent
        self._under_way = 0  # bytes

    def allocate(self, n_bytes: int, must: bool) -> tuple[Extent, Bytes] | None:
        if self._under_way and self._under_way + n_bytes > BUDGET and not must:
            return None
        self._under_way += n_bytes
        self._n_records += 1
        memory = self._records[self._n_records] = np.empty(n_bytes, np.uint8)
        return Extent(self._n_records, 0, n_bytes), memory

    def free(self, extents: list[Extent]) -> None:
        self._under_way -= sum(extent.n_bytes for extent in extents)

    def try_send(self, message: bytes, extents: list[Extent]) -> bool:
        frames: list[Any] = [message, *(self._records[extent.segment] for extent in extents)]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=self._copy)
        except zmq.Again:
            return False
        for extent in extents:
            del self._records[extent.segment]
        return True

    def wait_to_send(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLOUT)
        poller.register(self.link.socket, zmq.POLLIN)
        poller.poll()

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


class ZMQReceiver(Receiver):
    """The consumer's half."""

    def __init__(
        self,
        context: zmq.Context[Any],
        socket: zmq.Socket[Any],
        secret: bytes,
        link: Link,
        death: int | None,
    ) -> None:
        super().__init__(link)
        self._context = context
        self._socket = socket
        self._secret = secret
        self._worker: bytes | None = None  # routing id of its connection, once it is known
        self._n_records = 0
        self._records: dict[int, zmq.Frame] = {}
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(link.socket, zmq.POLLIN)
        if death is not None:
            self._poller.register(death, zmq.POLLIN)

    def receive(self) -> tuple[bytes, list[int]] | None:
        while True:
            try:
                sender, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return self.link.receive(block=False)
            if self._worker is None:
                self._introduce(sender.bytes, frames)
            elif sender.bytes == self._worker:
                for record in frames[1:]:
                    self._n_records += 1
                    self._records[self._n_records] = record
                return frames[0].bytes, []

    def _introduce(self, sender: bytes, frames: list[zmq.Frame]) -> None:
        if len(frames) == 1 and hmac.compare_digest(frames[0].bytes, self._secret):
            self._worker = sender

    def wait(self, timeout: int | None) -> bool:
        return bool(self._poller.poll(timeout))

    def view(self, extent: Extent) -> Bytes:
        frame = self._records.pop(extent.segment)
        self.release(extent)
        memory: Bytes = np.frombuffer(memoryview(frame), np.uint8)  # type: ignore[arg-type]  # a buffer
        if not memory.flags.writeable or memory.ctypes.data % ALIGNMENT:
            memory = memory.copy()
        return memory

    def release(self, extent: Extent) -> None:
        self._records.pop(extent.segment, None)
        super().release(extent)

    def close(self) -> None:
        self._records.clear()
        self._socket.close(0)
        self._context.term()
