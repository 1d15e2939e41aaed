"""Messages between the consumer and a worker process, over a pair of Unix sockets.

Sockets of type SEQPACKET keep the bounds of messages, and a send is atomic, so any thread may send
without a lock. File descriptors travel with messages. The end of the other side, however it comes,
shows as the end of the stream.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
from collections.abc import Sequence

__all__ = ["MAX_MESSAGE", "Link"]

# Bytes. Larger things travel in shared memory. Far below the default socket buffer (208 KiB on Linux),
# so that some messages are always under way.
MAX_MESSAGE = 1 << 16

MAX_DESCRIPTORS = 8
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


class Link:
    """One end of the pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

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
            If there is no room, and `block` is false.
        OSError
            If the other side is gone.
        """
        flags = 0 if block else socket.MSG_DONTWAIT
        if descriptors:
            rights = array.array("i", descriptors)
            self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], flags)
        else:
            self.socket.send(message, flags)

    def receive(self, block: bool = True) -> tuple[bytes, list[int]] | None:
        """Return the next message and the descriptors that came with it.

        Returns None if there is no message and `block` is false.

        Raises
        ------
        EOFError
            If the other side is gone.
        """
        try:
            message, ancillary, _, _ = self.socket.recvmsg(
                MAX_MESSAGE, _ANCILLARY, 0 if block else socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return None
        except ConnectionError:
            raise EOFError from None
        if not message:
            raise EOFError
        descriptors: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
                descriptors += rights
        return message, descriptors

    def wait(self, writable: bool = False) -> bool:
        """Wait until a message is there, or (`writable`) one can be sent; return whether one is there."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | (select.POLLOUT if writable else 0))
        return any(events & ~select.POLLOUT for _, events in poll.poll())

    def close(self) -> None:
        """Close this end."""
        self.socket.close()

    def refuse(self) -> None:
        """Read no more: from now on, sending fails for the other side."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)


def close_all(descriptors: Sequence[int]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
