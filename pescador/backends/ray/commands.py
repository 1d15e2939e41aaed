"""The thread that sends commands to the workers of a pool.

Whoever has a command appends it to a queue, which may be the garbage collector, in any thread and at any
moment. This thread alone calls Ray, with all commands that a worker is to have by then.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any

from ..system.threads import start_thread
from . import runtime
from .actor_loop import Command

__all__ = ["Commands"]


class Commands:
    """Commands that are on their way, for as long as a session of Ray lasts."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._queue: queue.SimpleQueue[tuple[Any, Command] | None] = queue.SimpleQueue()
        self._n_sent: dict[Any, int] = {}  # calls of each actor
        self._thread = threading.Thread(target=self._run, name="pescador-commands", daemon=True)
        start_thread(self._thread)

    def put(self, actor: Any, data: bytes, references: tuple[Any, ...] = ()) -> None:
        """Have a command sent. Takes no lock."""
        self._queue.put((actor, (data, references)))

    def close(self) -> None:
        """Send what is left, and end the thread."""
        self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            entry = self._queue.get()
            calls: dict[Any, list[Command]] = {}
            while True:
                if entry is None:
                    is_open = False
                else:
                    calls.setdefault(entry[0], []).append(entry[1])
                try:
                    entry = self._queue.get(False)
                except queue.Empty:
                    break
            for actor, commands in calls.items():
                self._send(actor, commands)
            del entry, calls

    def _send(self, actor: Any, commands: list[Command]) -> None:
        number = self._n_sent.get(actor, 0)
        if not runtime.is_there(self._session):
            return
        # What is raised here is raised where messages are read, too: the worker, or the runtime, is gone.
        with contextlib.suppress(Exception):
            actor.obey.remote(number, commands)
            self._n_sent[actor] = number + 1
