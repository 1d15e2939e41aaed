"""The loop of a worker process.

It obeys commands and runs generators (see :mod:`.loop`). The bodies of large items go where the transport
puts them. What is sent is a message with the small items, and with the places of the large ones; it stays
*pending* until one of these holds:

- it has as much as a message should hold, or is PENDING_SECONDS old when a slice of work ends;
- no stream has credits left, so the loop is about to wait;
- the consumer *wants* a stream of which something is pending.

A consumer says what it wants before it sleeps, by a command, which the main thread sees when a slice ends;
then what comes first will wake it. When it has slept for a while, a generator may have been running for as
long. Then it says so again, through the wake-up socket, which a thread of this worker listens to: that thread
sends what is pending at once (:meth:`ProcessLoop.wake_up`), or has the main thread send the next item of that
stream as soon as it is made. Both ways carry the same: the number of the stream, 0 for any, and how many
messages had come by then. If more were sent, one is under way, which will wake the consumer: it wants nothing
of this worker before it has seen that one. To wake it for something else would cost more time than its items
are worth.

For the same reason a consumer that *starves* (see :mod:`..consumer.pace`) says so in the command. What it
wants is then kept, with all else that is made, until the last message is STARVING_SECONDS old.
"""

from __future__ import annotations

import pickle
import threading
from typing import Any

from ..protocol.connection import Connection, Ended
from ..protocol.messages import Extent
from ..protocol.transport import Sender
from ..protocol.world import World
from ..system.shared_memory import Bytes
from .encoding_loop import EncodingLoop
from .loop import WorkerLoop

__all__ = ["ProcessLoop"]


class ProcessLoop(EncodingLoop):
    """The loop of a worker process."""

    def __init__(self, connection: Connection, sender: Sender, running: memoryview | None = None) -> None:
        super().__init__(sender, running)
        self._sender = sender
        self._connection = connection
        self.commands.update(segment=self._shelf.add_segment, world=World.enter)

    def next_command(self, block: bool) -> tuple[Any, ...] | None:
        try:
            received = self._connection.receive(block)
        except Ended:  # the consumer is gone, or wants no more of this worker
            return ("stop",)
        if received is None:
            return None
        message, handles = received
        return (*pickle.loads(message), *handles)

    def allocate_array(self, n_bytes: int) -> Bytes | None:
        """Return memory for :func:`pescador.empty`."""
        if n_bytes <= self._sender.small_bytes or threading.current_thread() is not threading.main_thread():
            return None
        return self._sender.allocate_array(n_bytes)

    def _put(self, message: list[bytes], extents: list[Extent]) -> None:
        self._sender.send(message, extents)
        while not self._connection.flush():
            # Commands are obeyed meanwhile, so that a consumer which does not read can still close.
            self._connection.wait(writable=True)
            WorkerLoop.obey_commands(self, block=False)

    def wake_up(self, number: int, n_received: int) -> bool:
        """Send what is pending if the consumer wants it; else have what it wants sent as soon as it is made.

        Called by the listening thread. Returns False if it is to be called again, because the main thread is
        sending, or the connection is full.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            pending = self._pending
            if not self._connection.flush():
                return False
            self._want(number, n_received)
            if n_received != self._n_sent:
                return True
            if not pending.n_items or (self.wanted and self.wanted not in pending.streams):
                self._at_once = True
            else:
                self._begin_pending()
                self._sender.send(pending.message(self.waited, self.copied), pending.extents)
                return self._connection.flush()
        except OSError:  # the consumer is gone, which the main thread will learn
            self._begin_pending()
        finally:
            self._lock.release()
        return True
