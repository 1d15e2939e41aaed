"""The worker's half: frames that it sends, and the memory of records, which is used again."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterable
from typing import Any

import zmq

from ..processes.ending import exit_now
from ..protocol import messages
from ..protocol.connection import Connection
from ..protocol.messages import AnyExtent, Extent, Record
from ..protocol.transport import Sender
from ..system.shared_memory import private
from ..system.threads import start_thread
from .frames import BUDGET, FRAME_BYTES, REMEDY, make_context, starts

__all__ = ["ZMQSender"]

# How long the system takes at most to connect two sockets of this machine. The consumer does not have to
# accept the connection itself, so it does not matter how busy that is.
CONNECT_SECONDS = 10

# The first frame of what a monitor tells: an event, and its value (zmq_socket_monitor(3)). What pyzmq has for
# that imports asyncio, which takes as long as pescador itself.
EVENT = struct.Struct("=hi")


class ZMQSender(Sender):
    """The worker's half."""

    # A frame costs as much as to copy 500 kB.
    small_bytes = 1 << 17
    pending_bytes = 1 << 20
    budget = BUDGET

    def __init__(self, connection: Connection, address: str, secret: bytes, copy: bool) -> None:
        super().__init__(connection)
        self._context = make_context(connection)
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.plain_username = b"worker"
        self._socket.plain_password = secret
        self._socket.sndhwm = 0  # what streams may be ahead is bound enough, so nothing is half sent
        events = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        monitor = self._socket.get_monitor_socket(events | zmq.EVENT_MONITOR_STOPPED)
        self._monitor = threading.Thread(target=_watch, args=(monitor, connection, address), daemon=True)
        start_thread(self._monitor)
        self._socket.connect(address)
        self._copy = copy
        self._n_records = 0
        self._lent: dict[int, Record] = {}  # by number
        self._spare: dict[int, list[Record]] = {}  # those that came back, by size
        self._n_bytes = 0  # of all these

    def allocate_apart(self, n_bytes: int) -> Record:
        self._n_records += 1
        extent = Extent(self._n_records, 0, n_bytes)
        spare = self._spare.get(n_bytes)
        if spare:
            record = spare.pop()
            record.extent = extent
        else:
            if self._n_bytes + n_bytes > BUDGET:
                self._give_up_spare()
            self._n_bytes += n_bytes
            record = Record(extent, private(n_bytes))
        self._lent[extent.segment] = record
        self._under_way += n_bytes
        return record

    def _give_up_spare(self) -> None:
        self._n_bytes = self._under_way
        self._spare.clear()

    def free(self, extents: Iterable[AnyExtent]) -> None:
        for number, _, n_bytes in extents:
            record = self._lent.pop(number)
            self._under_way -= n_bytes
            if self._n_bytes <= BUDGET:
                self._spare.setdefault(n_bytes, []).append(record)
            else:
                self._n_bytes -= n_bytes

    def send(self, message: list[bytes], extents: list[Extent]) -> None:
        whole = b"".join(message)
        parts = [whole[start : start + FRAME_BYTES] for start in starts(len(whole) + 1)]
        if extents:
            parts.append(messages.pack_extents(extents))
        self._socket.send_multipart(parts, copy=self._copy)
        for extent in extents:
            memory: Any = self._lent[extent.segment].memory
            for start in starts(extent.n_bytes):
                self._socket.send(memory[start : start + FRAME_BYTES], copy=self._copy)

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.join()
        self._context.destroy(0)


def _watch(monitor: zmq.Socket[Any], connection: Connection, address: str) -> None:
    """End this worker if there is no connection, of which neither side would hear; runs in a thread."""
    with monitor:
        # One second at a time: while this process is stopped, one of them passes at most.
        if not any(monitor.poll(1000) for _ in range(CONNECT_SECONDS)):
            _end_with(connection, f"it could not connect to {address} in {CONNECT_SECONDS} s. {REMEDY}")
        welcome = False
        while (event := EVENT.unpack(monitor.recv_multipart()[0])[0]) != zmq.EVENT_MONITOR_STOPPED:
            if event == zmq.EVENT_DISCONNECTED and welcome:
                _end_with(connection, "ZeroMQ closed the connection; has the consumer run out of memory?")
            welcome |= event == zmq.EVENT_HANDSHAKE_SUCCEEDED  # one that took too long is tried again


def _end_with(connection: Connection, words: str) -> None:
    with contextlib.suppress(OSError):  # the consumer is gone
        connection.send(messages.LAST_WORDS, words.encode())
    exit_now(1)
