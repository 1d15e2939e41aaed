"""Frames, of which the stream of bytes between two processes is made.

A frame is a header and a message. Handles of shared memory come with it: where these are file descriptors
they travel with its first byte, and where they are names they are the first of the bytes after the header::

    header   number of bytes that follow, number of handles
    bytes    the message
"""

from __future__ import annotations

import array
import socket
import struct
from collections import deque
from collections.abc import Sequence

from ...exceptions import PescadorError
from ..system.shared_memory import Handle, Named, close_all

__all__ = ["DESCRIPTORS_TRAVEL", "MAX_MESSAGE", "Ended", "Incoming", "Message", "frame"]

# Bytes that are received at a time; a longer message takes several turns.
MAX_MESSAGE = 1 << 16
COPIED_BYTES = 1 << 12  # A message of more is a view of what was received.
MAX_DESCRIPTORS = 8

# As plain integers: the flags of the socket module are members of an enum, which are slow to combine.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_TRUNCATED = int(getattr(socket, "MSG_CTRUNC", 0))
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4) if hasattr(socket, "CMSG_SPACE") else 0
DESCRIPTORS_TRAVEL = bool(_ANCILLARY)

_HEADER = struct.Struct("=QB")

Message = tuple[bytes | memoryview, list[Handle]]


class Ended(EOFError):  # noqa: N818  # it is no error, but how every connection ends
    """The other side is gone, and all that it sent was received."""


def frame(message: Sequence[bytes], n_handles: int = 0) -> bytes:
    """Return the frame of a message that is given in parts."""
    return b"".join((_HEADER.pack(sum(map(len, message)), n_handles), *message))


class Incoming:
    """What comes through a socket, which does not block.

    Attributes
    ----------
    messages : deque
        Those that are complete, with their handles. An error stands for one whose descriptors found no place.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.messages: deque[Message | PescadorError] = deque()
        self._socket = sock
        self._begun = b""  # what came of the next header
        self._coming: tuple[bytearray, int, int] | None = None  # a message, what is there, number of handles
        self._batches: deque[list[Handle] | None] = deque()  # that came; None: there was no place for them
        self._was_reset = False

    def take(self) -> list[int]:
        """Receive what is there.

        Returns
        -------
        list of int
            Of each frame with handles, how many it has; 0 for each frame with nothing.

        Raises
        ------
        Ended
            If the other side is gone.
        """
        notes: list[int] = []
        try:
            if self._coming is not None:
                self._take_more(*self._coming, notes)
                return notes
            received = self._receive()
        except BlockingIOError:
            return notes
        except ConnectionResetError:
            # It went without having read all. What it sent may still come; then the end, or this once more.
            if self._was_reset:
                raise Ended from None
            self._was_reset = True
            return notes
        if not received:
            raise Ended
        if self._begun:
            received = self._begun + received
        start, end = 0, len(received)
        while end - start >= _HEADER.size:
            n_bytes, n_handles = _HEADER.unpack_from(received, start)
            start += _HEADER.size
            if n_bytes > end - start:
                message = bytearray(n_bytes)
                message[: end - start] = received[start:end]
                self._coming = message, end - start, n_handles
                start = end
                break
            memory = received if n_bytes <= COPIED_BYTES else memoryview(received)
            self._keep(memory[start : start + n_bytes], n_handles, notes)
            start += n_bytes
        self._begun = received[start:]
        return notes

    def _take_more(self, message: bytearray, n_there: int, n_handles: int, notes: list[int]) -> None:
        n_bytes = self._socket.recv_into(memoryview(message)[n_there:])
        if not n_bytes:
            raise Ended
        if n_there + n_bytes < len(message):
            self._coming = message, n_there + n_bytes, n_handles
        else:
            self._coming = None
            self._keep(memoryview(message), n_handles, notes)

    def _receive(self) -> bytes:
        """Return bytes that came. Descriptors that came with them are of the next message that has some."""
        if not _ANCILLARY:
            return self._socket.recv(MAX_MESSAGE)
        received, ancillary, flags, _ = self._socket.recvmsg(MAX_MESSAGE, _ANCILLARY, _CLOSE_ON_EXEC)
        if ancillary or flags & _TRUNCATED:
            rights = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    rights.frombytes(data[: len(data) - len(data) % rights.itemsize])
            if flags & _TRUNCATED:
                close_all(rights)
            self._batches.append(None if flags & _TRUNCATED else list(rights))
        return received

    def _keep(self, message: bytes | memoryview, n_handles: int, notes: list[int]) -> None:
        """Keep a message that is complete."""
        if n_handles or not message:
            notes.append(n_handles)
        handles: list[Handle] | None = []
        if n_handles and _ANCILLARY:
            handles = self._batches.popleft() if self._batches else None
        elif n_handles:
            message, handles = Named.split(message, n_handles)
        if handles is None:
            self.messages.append(
                PescadorError(
                    "a file descriptor that came with a message found no place: too many files are open in "
                    "this process. Raise the limit ('ulimit -n')"
                )
            )
        elif message:
            self.messages.append((message, handles))

    def close(self) -> None:
        """Close the handles that came and nobody asked for."""
        received = [message[1] for message in self.messages if isinstance(message, tuple)]
        for handles in (*received, *self._batches):
            close_all(handles or ())
        self.messages.clear()
        self._batches.clear()
