"""In processes, everything through a ZeroMQ socket on the loopback interface.

Each worker has a socket of its own, and a secret that its consumer gave it through their connection. ZeroMQ
asks for it in the handshake (mechanism PLAIN), and the consumer answers at the *door* (RFC 27 of ZeroMQ),
so a stranger does not get as far as to send a message: nothing of his is queued, looked at or
unpickled, and nothing is ever sent to those who connect. With the worker's first message the door is
removed, and from then on ZeroMQ lets nobody in, whatever he knows.

Before the handshake is done, ZeroMQ holds one frame of a peer at most, and a frame has at most
FRAME_BYTES. So what is longer travels in several::

    message    frames of FRAME_BYTES, and a shorter one, maybe empty, that ends it
               one frame: the numbers and sizes of the records to which it refers, if there are any
    record     messages of one frame of FRAME_BYTES each, the last one may be shorter
    record     ...

The parts of a multipart message arrive only all together, so the frames of records are no such parts: each
is copied to its place while the next one is on its way.

A record begins with PADDING bytes. What libzmq allocates for a frame is aligned to 8 bytes, but not to 16;
behind them it is, as arrays of any dtype need it. So a record in a single frame is delivered as it is.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import math
import os
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from ...exceptions import ParameterError, PescadorError, WorkerError
from ..consumer.process_pool import ProcessBackend
from ..processes.ending import exit_now
from ..processes.launcher import Process
from ..protocol import messages
from ..protocol.connection import Connection, close_all
from ..protocol.errors import start_thread
from ..protocol.messages import AnyExtent, Extent, Record
from ..protocol.transport import Receiver, Sender
from ..system.shared_memory import Bytes

__all__ = ["ZMQBackend", "ZMQReceiver", "ZMQSender"]

ADDRESS = "tcp://127.0.0.1"

# How many bytes of records may be under way; an item that is larger goes alone.
BUDGET = 1 << 25

FRAME_BYTES = (1 << 20) + 4096  # an array of 1 MiB, and what comes with it

PADDING = 8
ALIGNMENT = 16

# What a context with its sockets takes at most, and one more that pyzmq has for sending without a copy.
N_DESCRIPTORS = 20
N_THREADS = 5

# How long the system takes at most to connect two sockets of this machine, however busy the consumer is:
# that accepts nothing itself.
CONNECT_SECONDS = 10

REMEDY = (
    "Is there a loopback interface, is it up ('ip link set lo up'), and does no firewall keep processes of "
    "this machine apart? backend='shm' does without"
)

# Where ZeroMQ asks, within a context, whether to let somebody in.
DOOR = "inproc://zeromq.zap.01"

_NOTHING: Bytes = np.empty(0, np.uint8)


class ZMQBackend(ProcessBackend):
    """Runs streams in processes that send their items through sockets.

    Of each worker, 32 MiB of large items are under way at most, or one item that is larger.

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

    def transport(self, connection: Connection, process: Process | None) -> tuple[Any, dict[str, Any], Any]:
        """Return what makes the two halves of the transport."""
        context = _context(connection)
        try:
            door = context.socket(zmq.REP)
            door.bind(DOOR)
            socket = context.socket(zmq.PULL)
            socket.plain_server = True
            socket.maxmsgsize = FRAME_BYTES
            port = self._bind(socket)
        except BaseException:
            context.destroy(0)
            raise
        secret = secrets.token_bytes(32)
        options = {"address": f"{ADDRESS}:{port}", "secret": secret, "copy": self._copy}
        return ZMQSender, options, partial(ZMQReceiver, context, socket, door, secret)

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
                    raise PescadorError(f"cannot listen on {ADDRESS}: {reason}. {REMEDY}") from error
        raise PescadorError(
            f"no free port from {min_port} to {max_port} in {max_tries} tries ({reason}); "
            "widen the range (min_port, max_port) or raise max_tries"
        )


class ZMQSender(Sender):
    """The worker's half."""

    # A frame costs as much as to copy 500 kB.
    small_bytes = 1 << 17
    pending_bytes = 1 << 20

    def __init__(self, connection: Connection, address: str, secret: bytes, copy: bool) -> None:
        super().__init__(connection)
        _keep_freed_memory()
        self._context = _context(connection)
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
        self._under_way = 0  # bytes

    def allocate(self, n_bytes: int) -> Record | None:
        if self._under_way and self._under_way + n_bytes > BUDGET:
            return None
        return self.allocate_apart(n_bytes)

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
            record = Record(extent, _padded(n_bytes)[PADDING:])
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

    def try_send(self, message: bytes, extents: list[Extent]) -> bool:
        parts = [message[start : start + FRAME_BYTES] for start in _starts(len(message) + 1)]
        if extents:
            parts.append(messages.pack_extents(extents))
        self._socket.send_multipart(parts, copy=self._copy)
        for extent in extents:
            memory: Any = self._lent[extent.segment].memory.base
            whole = memory[-(PADDING + extent.n_bytes) :]
            for start in _starts(len(whole)):
                self._socket.send(whole[start : start + FRAME_BYTES], copy=self._copy)
        return True

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
        while (event := recv_monitor_message(monitor)["event"]) != zmq.EVENT_MONITOR_STOPPED:
            if event == zmq.EVENT_DISCONNECTED and welcome:
                _end_with(connection, "ZeroMQ closed the connection; has the consumer memory left?")
            welcome |= event == zmq.EVENT_HANDSHAKE_SUCCEEDED  # one that took too long is tried again


def _end_with(connection: Connection, words: str) -> None:
    with contextlib.suppress(OSError):  # the consumer is gone
        connection.send(messages.LAST_WORDS + words.encode())
    exit_now(1)


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
        _keep_freed_memory()
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

    def receive(self) -> tuple[bytes, list[int]] | None:
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
        end = PADDING + n_bytes
        if len(frame) == end and (frame.ctypes.data + PADDING) % ALIGNMENT == 0:
            self._begun = frame
        else:
            if not self._n_bytes:
                self._begun = _padded(n_bytes)
            self._begun[self._n_bytes : self._n_bytes + len(frame)] = frame
        self._n_bytes += len(frame)
        if self._n_bytes == end:
            self._records[number] = self._begun[PADDING:]
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


def _context(connection: Connection) -> zmq.Context[Any]:
    """Return a context, if there is what ZeroMQ needs: where there is not, it would abort the process."""
    descriptors: list[int] = []
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(N_THREADS)]
    try:
        for _ in range(N_DESCRIPTORS):
            descriptors.append(os.dup(connection.socket.fileno()))
        for thread in threads:
            start_thread(thread)
    except (OSError, PescadorError, MemoryError) as error:
        raise PescadorError(
            f"ZeroMQ needs up to {N_DESCRIPTORS} file descriptors and {N_THREADS} threads for each worker: "
            f"{error.__cause__ or error}. Raise the limits ('ulimit -n', 'ulimit -u', 'ulimit -v'), or use "
            "backend='thread'"
        ) from error
    finally:
        end.set()
        close_all(descriptors)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return zmq.Context()


def _keep_freed_memory() -> None:
    """Have the C library keep the memory of messages for those that come next.

    glibc gives the end of a heap back to the system when that is more than twice as large as the largest
    block, of at most 32 MiB, that was ever mapped on its own and freed. Where all blocks are small, most
    messages come to lie on new pages, which take as long as all the rest. Any program has that effect which
    frees an array of 32 MiB.
    """
    np.empty((1 << 25) - 8192, np.uint8)


def _padded(n_bytes: int) -> Bytes:
    """Return memory for a record and the padding before it, behind which it is aligned."""
    return np.empty(ALIGNMENT + n_bytes, np.uint8)[ALIGNMENT - PADDING :]


def _starts(n_bytes: int) -> range:
    """Return where the frames of so many bytes begin."""
    return range(0, n_bytes, FRAME_BYTES)
