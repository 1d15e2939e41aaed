"""Starting the workers of a pool, in one of three ways, none of which runs the user's script again.

forkserver
    forked from a process that runs nothing of the user's (see :mod:`.forkserver`). The default on Linux.
spawn
    a fresh interpreter. The default on macOS, and all that there is on Windows.
fork
    forked from the consumer, which is only safe if that has no threads.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from ...exceptions import ParameterError, PescadorError
from ...interrupts import interrupts_held
from ..system import blas
from ..system.orphans import reclaim_once
from .ending import flush_output, forget_exit_functions, in_forked_child
from .forkserver import REAP_SECONDS, Forkserver, Grandchild
from .interpreter import interrupts_blocked, start_interpreter
from .process import Process, end

__all__ = ["START_METHODS", "Launcher", "cannot_start", "check_start_method"]

START_METHODS = ("forkserver", "spawn", "fork") if hasattr(os, "fork") else ("spawn",)

Sockets = tuple[socket.socket, socket.socket]
"""One side's end of the connection, and of the wake-up pair."""


def check_start_method(method: str | None) -> str:
    """Return the start method, or raise ParameterError."""
    if method is None:
        # On macOS, what NumPy computes with does not survive a fork.
        return START_METHODS[0] if sys.platform != "darwin" else "spawn"
    if method not in START_METHODS:
        raise ParameterError(f"unknown start_method {method!r}; it must be one of {', '.join(START_METHODS)}")
    return method


def cannot_start(error: Exception) -> PescadorError:
    """Return what to raise where a worker cannot be started."""
    return PescadorError(
        f"cannot start a worker process: {str(error) or type(error).__name__}. Are there processes "
        "('ulimit -u'), file descriptors ('ulimit -n') and memory left?"
    )


class Launcher:
    """Starts the workers of one pool. The thread that opens the pool uses it, and the one that closes it.

    `preload` are modules that its workers need, and this process, too. `given` are the variables that bound
    the threads of their libraries (see :mod:`..system.blas`). A worker gets them with all its environment,
    which is too late for NumPy: so that is told before.
    """

    def __init__(self, method: str, preload: Sequence[str] = (), **given: str) -> None:
        self._method = method
        self._preload = preload
        self._given = given
        self._forkserver = Forkserver.acquire() if method == "forkserver" else None
        try:
            with interrupts_held():  # or what a Ctrl-C leaves half imported could not be imported again
                # While that starts, what this process needs soon. psutil may not be needed, but to import it
                # at the end of an interpreter that a Ctrl-C ends would change its exit code.
                for name in ("numpy.random", "psutil", *preload):
                    import_module(name)
            reclaim_once()
        except BaseException:
            self.close()
            raise

    def start(self, theirs: Sockets, ours: Sockets) -> Process:
        """Start a worker.

        `theirs` are the worker's ends of its connection and of its wake-up pair, which are closed here in any
        case. `ours` are the consumer's; a forked worker closes them, or it would never see their end.
        """
        process = None
        try:
            if self._forkserver is not None:
                return self._start_from_forkserver(theirs)
            with interrupts_blocked():
                process = self._spawn(theirs) if self._method == "spawn" else self._fork(theirs, ours)
        except KeyboardInterrupt:
            if process is not None:
                end([process], 0)
            raise
        except (OSError, EOFError, ValueError) as error:
            raise cannot_start(error) from error
        else:
            return process
        finally:
            for sock in theirs:
                sock.close()

    def _start_from_forkserver(self, theirs: Sockets) -> Process:
        assert self._forkserver is not None
        descriptors = _descriptors(theirs)
        try:
            answer = self._forkserver.fork(descriptors, self._preload, **self._given)
        except (OSError, EOFError):
            if self._forkserver.is_alive(REAP_SECONDS):  # it is this process that has no descriptors left
                raise
            # Somebody killed it, and all its workers with it. The next one is fine.
            self._forkserver = Forkserver.replace(self._forkserver)
            answer = self._forkserver.fork(descriptors, self._preload, **self._given)
        if not answer.isdigit():
            raise OSError(answer)
        return Grandchild(int(answer), self._forkserver)

    def close(self) -> None:
        """To be called when all workers have ended."""
        forkserver, self._forkserver = self._forkserver, None
        if forkserver is not None:
            Forkserver.release(forkserver)

    def _spawn(self, theirs: Sockets) -> Process:
        code = "from pescador.backends.processes.worker_main import main"
        return start_interpreter(code, theirs, **self._given)

    def _fork(self, theirs: Sockets, ours: Sockets) -> Process:
        from . import worker_main  # here alone it is needed in the consumer

        flush_output()  # or the worker would print once more what is still to be printed here
        pid = os.fork()
        if not pid:
            in_forked_child(lambda: self._run(worker_main.main, theirs, ours))
        return Process(pid)

    def _run(self, main: Callable[..., NoReturn], theirs: Sockets, ours: Sockets) -> None:
        forget_exit_functions()
        for sock in ours:
            sock.close()
        for library in blas.loaded() if self._given else ():
            library.obey(self._given)
        main(*_descriptors(theirs))


def _descriptors(sockets: Sockets) -> tuple[int, int]:
    return sockets[0].fileno(), sockets[1].fileno()
