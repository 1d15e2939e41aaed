"""Messages between the consumer and a worker process, over a pair of Unix sockets.

Sockets of type SEQPACKET keep the bounds of messages, and a send is atomic, so any thread may send
without a lock. File descriptors travel with messages. A long message travels in a file without a name,
whose descriptor is sent in its place. The end of the other side, however it comes, shows as the end of
the stream.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..exceptions import PescadorError

__all__ = ["MAX_MESSAGE", "Link", "Naps"]

T = TypeVar("T")

# Bytes that go through the socket itself. Far below the default socket buffer (208 KiB on Linux),
# so that some messages are always under way.
MAX_MESSAGE = 1 << 16

# In place of a longer message. No other message begins like this.
_IN_A_FILE = b"\0file"

MAX_DESCRIPTORS = 8
# As plain integers: the flags of the socket module are members of an enum, which are slow to combine.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_DONT_WAIT = int(socket.MSG_DONTWAIT)
_TRUNCATED = int(socket.MSG_CTRUNC)
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)

# A nap takes twice as long as it was asked for, at least, and the waking up to 30 µs of one's own time.
NAP_SECONDS = 50e-6
NAPPING_SECONDS = 500e-6


class Link:
    """One end of the pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._kept: deque[tuple[bytes, list[int]]] = deque()  # received, and not asked for yet

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Return both ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def send(self, message: bytes, descriptors: Sequence[int] = (), block: bool = True) -> None:
        """Send a message.

        Raises
        ------
        BlockingIOError
            If there is no room, and `block` is false or :meth:`limit` was called.
        OSError
            If the other side is gone.
        """
        flags = 0 if block else _DONT_WAIT
        if len(message) > MAX_MESSAGE:
            with tempfile.TemporaryFile(buffering=0) as file:
                file.write(message)
                self.send(_IN_A_FILE, (*descriptors, file.fileno()), block)
        elif descriptors:
            rights = array.array("i", descriptors)
            self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], flags)
        else:
            self.socket.send(message, flags)

    def send_reading(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, and take in what comes while there is no room.

        If both sides only sent, neither would ever have room again.
        """
        while True:
            try:
                self.send(message, descriptors, block=False)
                break
            except BlockingIOError:
                if self._wait(select.POLLIN | select.POLLOUT):
                    self._kept.append(self._take(_CLOSE_ON_EXEC))

    def receive(self, block: bool = True) -> tuple[bytes, list[int]] | None:
        """Return the next message and the descriptors that came with it.

        Returns None if there is no message and `block` is false.

        Raises
        ------
        EOFError
            If the other side is gone.
        """
        if self._kept:
            return self._kept.popleft()
        if block:
            return self._take(_CLOSE_ON_EXEC)
        if not self._poll.poll(0):  # cheaper than an exception
            return None
        try:
            return self._take(_CLOSE_ON_EXEC | _DONT_WAIT)
        except BlockingIOError:
            return None

    def _take(self, flags: int) -> tuple[bytes, list[int]]:
        message, ancillary, flags = self._receive(flags)
        if not message:
            raise EOFError
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
        if message == _IN_A_FILE:
            with open(descriptors.pop(), "rb") as file:
                file.seek(0)
                message = file.read()
        return message, descriptors

    def _receive(self, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        while True:
            try:
                return self.socket.recvmsg(MAX_MESSAGE, _ANCILLARY, flags)[:3]
            except ConnectionResetError:  # once, when it went without having read all; now comes what it sent
                continue

    def limit(self, seconds: float) -> None:
        """Have a send that blocks give up after so many seconds."""
        whole = int(seconds)
        interval = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def wait(self, writable: bool = False) -> bool:
        """Wait until a message is there, or (`writable`) one can be sent; return whether one is there."""
        return bool(self._kept) or self._wait(select.POLLIN | (select.POLLOUT if writable else 0))

    def _wait(self, events: int) -> bool:
        poll = select.poll()
        poll.register(self.socket, events)
        return any(found & ~select.POLLOUT for _, found in poll.poll())

    def close(self) -> None:
        """Close this end."""
        self.socket.close()

    def end(self) -> None:
        """Close the connection, also if forked processes hold copies of this end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def refuse(self) -> None:
        """Read no more: from now on, sending fails for the other side."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)


class Naps:
    """Short waits for the other side, which it does not have to end.

    Whoever sleeps until a message comes has to be woken by its sender, whom that costs up to 40 µs in a
    virtual machine. To look again after a nap costs the sender nothing, but oneself the more the longer it
    lasts. So naps are for waits that are short, as the last one was.
    """

    def __init__(self) -> None:
        self._last = 0.0  # seconds

    def wait(self, look: Callable[[], T], sleep: Callable[[], T]) -> T:
        """Return what `look`, which has found nothing, finds after a nap, or else what `sleep` does."""
        started = time.perf_counter()
        deadline = started + NAPPING_SECONDS if self._last < NAPPING_SECONDS else started
        found = None
        while not found and time.perf_counter() < deadline:
            time.sleep(NAP_SECONDS)
            found = look()
        found = found or sleep()
        self._last = time.perf_counter() - started
        return found


def close_all(descriptors: Sequence[int]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
