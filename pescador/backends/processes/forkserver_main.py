"""The process from which workers are forked.

It has imported what every worker needs, runs one thread, and does what its consumer asks. A request is the
word and, as its first descriptor, a connection of its own for the answer::

    fork <how>  start a worker with the other descriptors  its pid, or why there is none
    reap <pid>  take the exit status of a worker           its exit code, or 'running'

It ends when its consumer does, or no longer needs it; workers that are left then end with it. It lives long,
so it holds nothing of what the consumer may close meanwhile: what workers print goes to the last descriptors
of the request, and this process has no output.

It is a subreaper (see :mod:`.ending`): when a worker has died, however that was, what it had started becomes
a child of this process, and is ended here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
import time
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import resource_tracker  # noqa: F401  # imported once, for all workers
from typing import NoReturn

import numpy.random  # noqa: F401  # likewise

from ...exceptions import PescadorError
from ..protocol.connection import Connection
from ..system import blas
from ..system.later import psutil
from ..system.pids import become_subreaper, end_with_parent, has_ended, offspring, tell, watch
from ..system.polling import POLLIN, new_poll
from ..system.shared_memory import close_all
from . import worker_main
from .ending import PATIENCE, exit_now, in_forked_child
from .interpreter import ignore_interrupts

__all__ = ["main"]

WORKER_SECONDS = 0.3  # in which workers end by themselves when their consumer has

LOOK_SECONDS = 0.05  # between two looks whether what was told to end has

MAX_STATUSES = 1000  # of how many dead workers it is known how they ended


def main(descriptor: int) -> NoReturn:
    """Serve until the consumer is gone."""
    ignore_interrupts()
    become_subreaper()
    _print_nothing()
    gc.freeze()  # what is here is here for good, and stays in memory that workers share
    server = _Server(Connection(socket.socket(fileno=descriptor)))
    with contextlib.suppress(EOFError, OSError):
        server.serve()
    server.wait_for_workers()
    exit_now(0)


class _Server:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._consumer = watch(os.getppid())
        self._poll = new_poll()
        self._poll.register(connection.socket, POLLIN)
        if self._consumer is not None:
            self._poll.register(self._consumer, POLLIN)
        self._workers: set[int] = set()  # those that were not reaped yet
        self._watched: set[int] = set()  # descriptors of those that run
        self._statuses: dict[int, str] = {}  # of those that were reaped, for an answer may have come too late
        self._libraries = blas.loaded()  # NumPy's
        self._told: dict[int, float] = {}  # when each inherited process was told to end

    def serve(self) -> None:
        """Answer until the connection ends, or the consumer does."""
        looks = False  # whether to look for what dead workers have left
        while True:
            ready = {found for found, _ in self._poll.poll(1000 * LOOK_SECONDS if looks else None)}
            if self._consumer in ready:
                break
            for died in ready & self._watched:
                self._poll.unregister(died)
                self._watched.remove(died)
                os.close(died)
                looks = True
            if self._connection.socket.fileno() in ready:
                while self._answer():
                    pass
            if looks:
                looks = self._end_inherited()

    def _answer(self) -> bool:
        """Answer a question, if there is one; return whether to look again."""
        try:
            received = self._connection.receive(block=False)
        except PescadorError:  # there is no descriptor left; who asked sees the end of their connection
            return True
        if received is None:
            return False
        message, handles = received
        answers, *descriptors = (handle for handle in handles if isinstance(handle, int))
        question, _, argument = bytes(message).partition(b" ")
        if question == b"fork":
            try:
                answer = str(self._fork(answers, descriptors, *pickle.loads(argument)))
            except OSError as error:
                answer = f"fork failed: {error}"
            finally:
                close_all(descriptors)
        else:
            answer = self._reap(int(argument))
        asker = Connection(socket.socket(fileno=answers))
        with contextlib.closing(asker), contextlib.suppress(OSError):  # it no longer wants to know
            asker.send(answer.encode())
        return True

    def _fork(
        self,
        answers: int,
        descriptors: list[int],
        given: dict[str, str],
        preload: Sequence[str],
        outputs: list[int],
    ) -> int:
        for name in preload:
            with contextlib.suppress(Exception):  # the worker meets it, too, and tells
                import_module(name)
        for library in self._libraries:
            library.obey(given)  # before the fork, see there
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            self._connection.close()
            os.close(answers)
            close_all(list(self._watched))
            if self._consumer is not None:
                os.close(self._consumer)
            connection, wakeup, *targets = descriptors
            in_forked_child(
                lambda: _run(parent, connection, wakeup, dict(zip(outputs, targets, strict=True)))
            )
        self._workers.add(pid)
        self._statuses.pop(pid, None)  # of an earlier one with that number
        with contextlib.suppress(OSError):  # without a descriptor, what it leaves is found later
            watched = watch(pid)
            if watched is not None:
                self._watched.add(watched)
                self._poll.register(watched, POLLIN)
        return pid

    def _reap(self, pid: int) -> str:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return self._statuses.get(pid, "0")
        if not ended:
            return "running"
        self._workers.discard(pid)
        if len(self._statuses) >= MAX_STATUSES:
            del self._statuses[next(iter(self._statuses))]  # nobody asks for the oldest one any more
        self._statuses[pid] = str(os.waitstatus_to_exitcode(status))
        return self._statuses[pid]

    def _end_inherited(self) -> bool:
        """End what dead workers have left; return whether one has to look again."""
        found = [child.pid for child in offspring(os.getpid()) if child.pid not in self._workers]
        left = [pid for pid in found if not has_ended(pid)]  # as have, so it says, children of children
        now = time.monotonic()
        for pid in left:
            first = self._told.setdefault(pid, now)
            if first == now or now - first > PATIENCE:
                with contextlib.suppress(psutil.Error):
                    tell(psutil.Process(pid), signal.SIGTERM if first == now else signal.SIGKILL)
        self._told = {pid: self._told[pid] for pid in left}
        return bool(left)

    def wait_for_workers(self) -> None:
        """Give the workers time to end by themselves, as they do when their consumer has."""
        give_up = time.monotonic() + WORKER_SECONDS
        while self._workers and time.monotonic() < give_up:
            self._workers = {pid for pid in self._workers if not has_ended(pid)}
            time.sleep(LOOK_SECONDS / 10)


def _print_nothing() -> None:
    """Let go of the standard output and error of the consumer, which may be pipes that somebody reads."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)
    if nowhere > 2:
        os.close(nowhere)


def _run(parent: int, connection: int, wakeup: int, outputs: dict[int, int]) -> None:
    end_with_parent(parent)
    for output, target in outputs.items():
        os.dup2(target, output)
        os.close(target)
    worker_main.main(connection, wakeup)
