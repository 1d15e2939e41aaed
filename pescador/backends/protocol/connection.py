"""Messages between the consumer and a worker process, over a pair of connected sockets.

A message is a frame in a stream of bytes (see :mod:`.frames`); with it may come handles of shared memory (see
:mod:`..system.shared_memory`). A frame with nothing says that the handles of a message came. Until then the
sender keeps copies, for they might be lost while they are under way; Linux loses none, and does without.

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
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence

from ...exceptions import PescadorError
from ..system.polling import POLLIN, POLLOUT, new_poll
from ..system.shared_memory import Handle, Named, close_all, copies_of
from .frames import DESCRIPTORS_TRAVEL, MAX_MESSAGE, Ended, Incoming, Message, frame

__all__ = ["MAX_MESSAGE", "Connection", "Ended", "Message", "socket_pair"]

# What sockets hold at least, of each direction. Linux gives 208 KiB, macOS 8.
BUFFER_BYTES = 1 << 18

# As plain integers: the flags of the socket module are members of an enum, which are slow to combine.
# Some programs let SIGPIPE end them; that the other side is gone is not to end this one.
_NO_SIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))

# The system is short of something that comes back when the other side reads. poll() does not know of that.
_SHORT = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
SHORT_SECONDS = 1e-3

# The other side is gone.
_GONE = (errno.EPIPE, errno.ECONNRESET)

_NO_HANDLES: list[Handle] = []


class Connection:
    """One end of the pair.

    Attributes
    ----------
    broken : str
        Why it cannot be used any more, if an exception (a Ctrl-C, most likely) came while a message was
        sent: nobody knows whether it was. Otherwise empty.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # a flag for each call does not do on macOS
        self.socket = sock
        self.broken = ""
        self._poll = new_poll()
        self._poll.register(sock, POLLIN)
        self._incoming = Incoming(sock)
        self._unsent: deque[tuple[bytes | memoryview, list[Handle]]] = deque()
        self._lent: deque[list[Handle]] = deque()  # sent, and kept until they have come
        self._sending = threading.Lock()  # never waited for
        self._is_closed = False

    @classmethod
    def pair(cls) -> tuple[Connection, Connection]:
        """Return both ends."""
        one, other = socket_pair()
        return cls(one), cls(other)

    # Sending

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._unsent)

    def send(self, *message: bytes, handles: Sequence[Handle] = ()) -> None:
        """Send a message, given in parts, now or when there is room. The caller may close the handles.

        Raises
        ------
        BrokenPipeError, ConnectionResetError
            If the other side is gone, or this end is closed.
        PescadorError
            If there is no descriptor left to keep a copy.
        """
        self._check()
        if handles:
            names = [handle.name.encode() for handle in handles if isinstance(handle, Named)]
            self._unsent.append((frame([*names, *message], len(handles)), copies_of(handles)))
        else:
            self._unsent.append((frame(message), _NO_HANDLES))
        self.flush()

    def flush(self) -> bool:
        """Send what is queued, as far as there is room, and return whether that was all."""
        unsent, sending = self._unsent, self._sending
        try:
            while unsent and sending.acquire(blocking=False):
                try:
                    while unsent:
                        frame, handles = unsent[0]
                        n_sent = self._send(frame, handles)
                        if n_sent < len(frame):
                            if n_sent:  # the handles went with the first byte
                                unsent[0] = memoryview(frame)[n_sent:], _NO_HANDLES
                                self._lend(handles)
                            return False
                        unsent.popleft()
                        if handles:
                            self._lend(handles)
                finally:
                    sending.release()
        except BaseException as error:
            self._failed(error)
            raise
        if self._is_closed:
            self.close()
        return not unsent

    def _send(self, frame: bytes | memoryview, handles: Sequence[Handle]) -> int:
        """Send what there is room for, and return how many bytes that was."""
        self._check()
        try:
            if handles and DESCRIPTORS_TRAVEL:
                descriptors = [handle for handle in handles if isinstance(handle, int)]  # as all are here
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                return self.socket.sendmsg([frame], ancillary, _NO_SIGNAL)
            return self.socket.send(frame, _NO_SIGNAL)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            time.sleep(SHORT_SECONDS)
            return 0

    def _lend(self, handles: list[Handle]) -> None:
        if sys.platform == "linux":
            close_all(handles)
        elif handles:
            self._lent.append(handles)

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

    def send_reading(self, *message: bytes, handles: Sequence[Handle] = ()) -> None:
        """Send a message, and wait until it is sent; what comes meanwhile is kept.

        If both sides only sent, neither would ever have room again.
        """
        self.send(*message, handles=handles)
        while not self.flush():
            if self._wait(POLLIN | POLLOUT):
                self._take()

    # Receiving

    def receive(self, block: bool = True) -> Message | None:
        """Return the next message and the handles that came with it.

        Returns None if there is no message and `block` is false.

        Raises
        ------
        Ended
            If the other side is gone.
        """
        messages = self._incoming.messages
        while not messages:
            if block:
                self.wait()
            elif not self._poll.poll(0):  # cheaper than an exception
                return None
            self._take()
        message = messages.popleft()
        if isinstance(message, PescadorError):
            raise message
        return message

    def _take(self) -> None:
        """Receive what is there."""
        for n_handles in self._incoming.take():
            if not n_handles:
                close_all(self._lent.popleft())
            elif sys.platform != "linux":
                with contextlib.suppress(ConnectionError):  # it is gone, which the next look finds
                    self._unsent.append((frame([]), _NO_HANDLES))
                    self.flush()

    def take_acknowledgements(self) -> None:
        """Let go of the handles that have come, where nothing else is ever received; one thread at a time."""
        with contextlib.suppress(OSError, EOFError):
            while self._lent and self._poll.poll(0):
                self._take()

    def wait(self, writable: bool = False) -> bool:
        """Wait until a message is there, or (`writable`) one can be sent; return whether one is there.

        What is queued is sent meanwhile.
        """
        while not self._incoming.messages:
            if not writable and not self._unsent:
                self._poll.poll()
                break
            if self._wait(POLLIN | POLLOUT):
                break
            try:
                if self.flush() and writable:
                    return False
            except ConnectionError:
                if self.broken:
                    raise
        return True

    def _wait(self, events: int) -> bool:
        poll = new_poll()
        poll.register(self.socket, events)
        return any(found & ~POLLOUT for _, found in poll.poll())

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
        self._incoming.close()
        while self._lent:
            close_all(self._lent.popleft())
        self.socket.close()

    def end(self) -> None:
        """Close the connection, also if forked processes hold copies of this end."""
        self.hang_up()
        self.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return a pair of connected sockets with large buffers."""
    pair = socket.socketpair()
    for sock in pair:
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            if sock.getsockopt(socket.SOL_SOCKET, buffer) < BUFFER_BYTES // 2:
                sock.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
    return pair
