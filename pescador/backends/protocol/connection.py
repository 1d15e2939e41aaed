"""Messages between the consumer and a worker process, over a pair of Unix sockets.

Sockets of type SEQPACKET keep the bounds of messages. File descriptors travel with messages, and a long
message travels as several packets, of which the first announces it::

    packet    a message of MAX_MESSAGE bytes at most
    packet    the announcement: a mark and the size of a long message, with its descriptors
    packets   MAX_MESSAGE bytes of it each, the last one may be shorter

The end of the other side, however it comes, shows as the end of the stream.

Sending never blocks. Any thread may send at any time, and so may a finalizer that the garbage collector
runs while the same thread is sending: a message goes into a queue in one step, and whoever gets the lock,
which nobody waits for, sends what is in the queue as far as the socket takes it. The holder of the lock
looks again once it has released it, so that nothing is left in the queue because two threads missed each
other. What does not fit stays there until the next :meth:`Connection.send` or wait of this side; waits also
end when there is room again. Messages keep their order.
"""

from __future__ import annotations

import array
import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence

from ...exceptions import PescadorError
from ..system.descriptors import close_all, copies_of

__all__ = ["MAX_MESSAGE", "Connection", "Ended"]

# Bytes of a packet. Far below the default socket buffer (208 KiB on Linux), so that some packets are
# always under way.
MAX_MESSAGE = 1 << 16

# The announcement of a longer message. No other message begins like this.
_LONG = b"\0long"
_SIZE = struct.Struct("=Q")

MAX_DESCRIPTORS = 8
# As plain integers: the flags of the socket module are members of an enum, which are slow to combine.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_DONT_WAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
# Some programs let SIGPIPE end them; that the other side is gone is not to end this one.
_SEND = _DONT_WAIT | int(getattr(socket, "MSG_NOSIGNAL", 0))
_TRUNCATED = int(getattr(socket, "MSG_CTRUNC", 0))
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4) if hasattr(socket, "CMSG_SPACE") else 0

# The system is short of something that comes back when the other side reads. poll() does not know of that.
_SHORT = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
SHORT_SECONDS = 1e-3

# The other side is gone.
_GONE = (errno.EPIPE, errno.ECONNRESET)

_Packet = tuple[bytes | memoryview, list[int]]
_NO_DESCRIPTORS: list[int] = []


class Ended(EOFError):  # noqa: N818  # it is no error, but how every connection ends
    """The other side is gone, and all that it sent was received."""


class Connection:
    """One end of the pair.

    Attributes
    ----------
    broken : str
        Why it cannot be used any more, if an exception (a Ctrl-C, most likely) came while a message was
        sent: nobody knows whether it was. Otherwise empty.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)  # whatever socket.setdefaulttimeout() says
        self.socket = sock
        self.broken = ""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._kept: deque[tuple[bytes, list[int]]] = deque()  # received, and not asked for yet
        self._coming: tuple[bytearray, int, list[int]] | None = None  # a long message, and its size
        self._unsent: deque[_Packet] = deque()
        self._sending = threading.Lock()  # never waited for
        self._is_closed = False

    @classmethod
    def pair(cls) -> tuple[Connection, Connection]:
        """Return both ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    # Sending

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._unsent)

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, now or when there is room. The caller may close the descriptors at once.

        Raises
        ------
        BrokenPipeError, ConnectionResetError
            If the other side is gone, or this end is closed.
        PescadorError
            If there is no descriptor left to keep a copy.
        """
        if not descriptors and self.try_send(message):
            return
        self._check()
        copies = copies_of(descriptors) if descriptors else _NO_DESCRIPTORS
        if len(message) <= MAX_MESSAGE:
            self._unsent.append((message, copies))
        else:
            self._unsent.extend(_packets(message, copies))  # in one step: nothing comes in between
        self.flush()

    def try_send(self, message: bytes) -> bool:
        """Send a message that is not long if nothing is queued and there is room; return whether."""
        if (self._unsent and not self.flush()) or len(message) > MAX_MESSAGE:
            return False
        try:
            if not self._sending.acquire(blocking=False):
                return False  # another thread is just sending, or this one is, below
            try:
                is_sent = self.send_now(message)
            finally:
                self._sending.release()
        except BaseException as error:
            self._failed(error)
            raise
        if self._unsent or self._is_closed:  # meanwhile
            self.flush()
        return is_sent

    def flush(self) -> bool:
        """Send what is queued, as far as there is room, and return whether that was all."""
        unsent, sending = self._unsent, self._sending
        try:
            while unsent and sending.acquire(blocking=False):
                try:
                    while unsent:
                        message, descriptors = unsent[0]
                        if not self.send_now(message, descriptors):
                            return False
                        unsent.popleft()
                        if descriptors:
                            close_all(descriptors)
                finally:
                    sending.release()
        except BaseException as error:
            self._failed(error)
            raise
        if self._is_closed:
            self.close()
        return not unsent

    def send_now(self, message: bytes | memoryview, descriptors: Sequence[int] = ()) -> bool:
        """Send a message that is not long, ahead of the queue, if there is room; return whether."""
        self._check()
        try:
            if descriptors:
                rights = array.array("i", descriptors)
                self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], _SEND)
            else:
                self.socket.send(message, _SEND)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            time.sleep(SHORT_SECONDS)
            return False
        return True

    def _check(self) -> None:
        if self._is_closed or self.broken:
            raise BrokenPipeError(errno.EPIPE, "this end of the connection is not used any more")

    def _failed(self, error: BaseException) -> None:
        # A signal handler raises what it likes, also an OSError without a number.
        if getattr(error, "errno", None) not in _GONE:
            self.give_up(error)
        if self._is_closed:
            self.close()
        elif self._sending.acquire(blocking=False):
            try:
                self._drop_unsent()
            finally:
                self._sending.release()

    def give_up(self, error: BaseException) -> None:
        """Have this connection not be used any more, because a message may have been lost to an exception."""
        self.broken = self.broken or f"a message was lost to a {type(error).__name__}"

    def _drop_unsent(self) -> None:
        """Forget what is queued, for nobody will read it. The lock is held."""
        while self._unsent:
            close_all(self._unsent.popleft()[1])

    def send_reading(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, and wait until it is sent; what comes meanwhile is kept.

        If both sides only sent, neither would ever have room again.
        """
        self.send(message, descriptors)
        while not self.flush():
            if self._wait(select.POLLIN | select.POLLOUT):
                received = self._take(_CLOSE_ON_EXEC)
                if received is not None:
                    self._kept.append(received)

    # Receiving

    def receive(self, block: bool = True) -> tuple[bytes, list[int]] | None:
        """Return the next message and the descriptors that came with it.

        Returns None if there is no message and `block` is false.

        Raises
        ------
        Ended
            If the other side is gone.
        """
        while True:
            if self._kept:
                return self._kept.popleft()
            if block:
                if self._unsent:
                    self.wait()
                received = self._take(_CLOSE_ON_EXEC)
            else:
                if not self._poll.poll(0):  # cheaper than an exception
                    return None
                try:
                    received = self._take(_CLOSE_ON_EXEC | _DONT_WAIT)
                except BlockingIOError:
                    return None
            if received is not None:
                return received

    def _take(self, flags: int) -> tuple[bytes, list[int]] | None:
        """Take a packet; return the message that is complete with it, if one is."""
        packet, ancillary, flags = self._receive(flags)
        if not packet:
            raise Ended
        descriptors: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
                descriptors += rights
        if flags & _TRUNCATED:
            close_all(descriptors)
            raise PescadorError(
                "a file descriptor that came with a message found no place: too many files are open in this "
                "process. Raise the limit ('ulimit -n')"
            )
        if self._coming is not None:
            message, size, descriptors = self._coming
            message += packet
            if len(message) < size:
                return None
            self._coming = None
            return bytes(message), descriptors
        if packet.startswith(_LONG):
            self._coming = bytearray(), _SIZE.unpack_from(packet, len(_LONG))[0], descriptors
            return None
        return packet, descriptors

    def _receive(self, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        while True:
            try:
                return self.socket.recvmsg(MAX_MESSAGE, _ANCILLARY, flags)[:3]
            except ConnectionResetError:  # once, when it went without having read all; now comes what it sent
                continue

    def wait(self, writable: bool = False) -> bool:
        """Wait until a message is there, or (`writable`) one can be sent; return whether one is there.

        What is queued is sent meanwhile.
        """
        while not self._kept:
            events = select.POLLIN | (select.POLLOUT if writable or self._unsent else 0)
            if self._wait(events):
                break
            try:
                if self.flush() and writable:
                    return False
            except ConnectionError:
                if self.broken:
                    raise
        return True

    def _wait(self, events: int) -> bool:
        poll = select.poll()
        poll.register(self.socket, events)
        return any(found & ~select.POLLOUT for _, found in poll.poll())

    # The end

    def hang_up(self) -> None:
        """Say and hear nothing more.

        The other side reads what is in the socket already, and then the end of the stream; sending fails
        for it. This needs no room, and holds also where forked processes have copies of this end.
        """
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end, and drop what was not sent; what another thread is just sending ends first."""
        self._is_closed = True
        # That thread closes it then. After an exception the lock may be held by nobody.
        if not self._sending.acquire(blocking=False) and not self.broken:
            return
        self._drop_unsent()
        for _, descriptors in self._kept:
            close_all(descriptors)
        self._kept.clear()
        if self._coming is not None:
            close_all(self._coming[2])
            self._coming = None
        self.socket.close()

    def end(self) -> None:
        """Close the connection, also if forked processes hold copies of this end."""
        self.hang_up()
        self.close()


def _packets(message: bytes, descriptors: list[int]) -> list[_Packet]:
    """Return the packets of a long message."""
    view = memoryview(message)
    parts = range(0, len(view), MAX_MESSAGE)
    packets: list[_Packet] = [(view[start : start + MAX_MESSAGE], _NO_DESCRIPTORS) for start in parts]
    return [(_LONG + _SIZE.pack(len(view)), descriptors), *packets]
