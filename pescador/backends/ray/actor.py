"""A worker: an actor of Ray, whose methods run in several threads of its process."""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import ray

from ... import __version__
from ..protocol import script
from .actor_loop import ActorLoop, Batch, Command, Mailbox, Outbox

__all__ = ["N_THREADS", "Place", "RayWorker"]

N_THREADS = 3
"""Methods that may run at once: one gives messages, one takes commands, one tells what all threads do."""

# While a generator runs Python code, Ray's threads have to wait for it so long.
SWITCH_SECONDS = 5e-4


class Place(NamedTuple):
    """Where a worker is, and what runs there."""

    host: str
    node: str
    pid: int
    versions: str

    def __str__(self) -> str:
        return f"worker process {self.pid} on host {self.host} (node {self.node[:8]})"


def versions() -> str:
    """Return the versions that have to agree where items are made and where they are taken."""
    return f"pescador {__version__}, Python {platform.python_version()}, NumPy {np.__version__}"


class RayWorker:
    """A worker. Its methods are called from afar, each by a thread of its own."""

    def __init__(self) -> None:
        self._mailbox = Mailbox()
        self._outbox = Outbox()
        self._running = [0, 0]
        self._thread: threading.Thread | None = None

    def begin(self, names: dict[str, bytes], filename: str | None, search_path: list[str]) -> Place:
        """Take on what is the consumer's, and return where this is."""
        script.install(names, filename)
        # What is found here stays first: on another machine, a folder of the same name may be another one.
        sys.path += [folder for folder in search_path if folder not in sys.path and os.path.exists(folder)]
        sys.setswitchinterval(SWITCH_SECONDS)
        node = ray.get_runtime_context().get_node_id()
        return Place(socket.gethostname(), node, os.getpid(), versions())

    # Ray is not followed by the type checker: it is not installed everywhere.
    @ray.method(num_returns="streaming")  # type: ignore[untyped-decorator,unused-ignore]
    def run(self) -> Iterator[Batch]:
        """Give messages until the worker is told to stop."""
        loop = ActorLoop(self._mailbox, self._outbox)
        loop.running = self._running
        failures: list[BaseException] = []

        def work() -> None:
            try:
                loop.probe()
                loop.run()
                loop.close()
            except BaseException as error:
                failures.append(error)
            finally:
                self._outbox.close()

        self._thread = threading.Thread(target=work, name="pescador-worker", daemon=True)
        self._thread.start()
        while (batch := self._outbox.take(loop.flush)) is not None:
            yield batch
            del batch  # its memory is in the object store now
        if failures:
            raise failures[0]

    @ray.method(num_returns=0)  # type: ignore[untyped-decorator,unused-ignore]  # see above
    def obey(self, number: int, commands: list[Command]) -> None:
        """Take commands; `number` counts the calls."""
        self._mailbox.put(number, commands)

    def stacks(self) -> tuple[int, str]:
        """Return the number of the stream whose generator runs, and the stack of the thread that runs it."""
        frame = None if self._thread is None else sys._current_frames().get(self._thread.ident or 0)
        return self._running[0], "".join(traceback.format_stack(frame)) if frame is not None else ""
