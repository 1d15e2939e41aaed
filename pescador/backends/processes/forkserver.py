"""The consumer's side of the *forkserver*, the process from which workers are forked.

It is a process of ours that has imported NumPy and pescador and runs no thread of the user's (see
:mod:`.forkserver_main`). The first pool of a consumer process starts it, and it ends with that, because it
takes longer to start than all else that a pool needs. Between two pools it waits in the kernel.

It is in the place of a process that each pool would start. So a pool uses it only if that would be like it:
have the same command line and environment, and take over the same from this process (rights, limits, and
what else is in :mod:`..system.inherited`). If not, another takes its place, and it ends with the pools that
use it.

Any thread may use it, also a finalizer that runs while the same thread is using it.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from typing import ClassVar

from ...exceptions import PescadorError
from ...interrupts import interrupts_held
from ..protocol.connection import Connection
from ..system.inherited import inherited
from ..system.later import psutil
from ..system.pids import process_state
from ..system.polling import POLLIN, new_poll
from .interpreter import interpreter_environment, interrupts_blocked, python_command, start_interpreter
from .process import Process, end

__all__ = ["Forkserver", "Grandchild"]

# Seconds in which a forkserver forks a worker. On a machine under heavy load one was seen to need 22.
ANSWER_SECONDS = 60

# Seconds in which it tells how a worker ended (no caller gains by waiting longer), and in which it ends when
# it is told to.
REAP_SECONDS = 0.3
END_SECONDS = 0.3

# Seconds in which it tells how a worker ended where that becomes part of an error.
CAUSE_SECONDS = 2.0

FULL_SECONDS = 0.01  # between two tries to ask while it has not read hundreds of questions


class Forkserver:
    """A forkserver. One that has died is replaced by the next caller that needs one.

    It is made by :meth:`acquire` alone.
    """

    current: ClassVar[Forkserver | None] = None
    # Held more than once when the garbage collector closes another pool meanwhile.
    _lock: ClassVar[threading.RLock] = threading.RLock()  # type: ignore[valid-type]

    def __init__(self, likeness: list[object]) -> None:
        self._likeness = likeness
        self._n_users = 0
        self._is_silent = False  # it did not tell how a worker ended; set by whichever thread asked last
        self._fate = ""  # why it was killed
        self._answering = threading.Lock()  # never waited for
        process: Process | None = None
        self._connection, other = Connection.pair()
        code = "from pescador.backends.processes.forkserver_main import main"
        try:
            with contextlib.closing(other), interrupts_blocked():
                process = start_interpreter(code, [other.socket])
        except BaseException:
            self._connection.end()
            if process is not None:  # a Ctrl-C came as soon as it might
                end([process], END_SECONDS, signal.SIGKILL)
            raise
        self._process = process
        self.pid = process.pid
        # At the exit of the interpreter, this one comes after those of the pools, which are made later.
        self._end = weakref.finalize(self, _end, self._connection, process, os.getpid())

    @classmethod
    def acquire(cls) -> Forkserver:
        """Return the forkserver of this process, which runs at least until it is released as often."""
        with cls._lock:
            likeness = [python_command(""), interpreter_environment(), *inherited()]
            old = cls.current
            if old is None or old._likeness != likeness or not old.is_alive():
                cls.current = Forkserver(likeness)
                if old is not None and not old._n_users:
                    old._end()
            assert cls.current is not None
            cls.current._n_users += 1
            return cls.current

    @classmethod
    def release(cls, forkserver: Forkserver) -> None:
        """Give back what :meth:`acquire` returned; it ends only if nobody can use it any more."""
        with cls._lock:
            forkserver._n_users -= 1
            if forkserver._is_silent and forkserver is cls.current and not forkserver._n_users:
                cls.current = None
            if forkserver is not cls.current and not forkserver._n_users:
                forkserver._end()

    @classmethod
    def replace(cls, forkserver: Forkserver) -> Forkserver:
        """Give back a forkserver that is dead, and return another."""
        with cls._lock:
            if cls.current is forkserver:
                cls.current = None
            cls.release(forkserver)
            return cls.acquire()

    def is_alive(self, seconds: float = 0.0) -> bool:
        """Whether its process still runs after so many seconds; its connection may end a little earlier."""
        return not self._process.wait(seconds)

    def exit_cause(self) -> str:
        """Return how its process ended, in words that follow its name."""
        self._process.wait(REAP_SECONDS)
        return self._fate or self._process.exit_cause()

    def fork(self, descriptors: Sequence[int], preload: Sequence[str] = (), **given: str) -> str:
        """Start a worker with these descriptors; return its pid, or why there is none.

        What it prints goes where this process prints now. The modules `preload` are imported before, so that
        this takes time only once. The libraries that it has then use as many threads as the `given` variables
        say.

        Raises
        ------
        EOFError, OSError
            If its process is dead.
        PescadorError
            If no answer comes. Then the forkserver is killed, so the next pool starts another.
        """
        outputs = [output for output in (1, 2) if _is_open(output)]
        how = pickle.dumps((given, preload, outputs))
        try:
            answer = self._ask("fork", how, (*descriptors, *outputs), ANSWER_SECONDS)
        except (OSError, EOFError):
            raise
        except BaseException:  # a Ctrl-C: perhaps there is a worker that nobody knows of, to end with this
            with self._lock:
                if self is Forkserver.current:
                    Forkserver.current = None
            raise
        if answer is None:
            raise self._killed()
        return answer

    def reap(self, pid: int, seconds: float = REAP_SECONDS) -> str:
        """Return the exit status of a worker, 'running', or nothing if the forkserver does not answer.

        One that did not is not waited for again, unless for longer: it is stopped, most likely.
        """
        waits = seconds > REAP_SECONDS or not self._is_silent
        answer = self._ask("reap", str(pid).encode(), (), seconds if waits else 0)
        self._is_silent = answer is None
        return answer or ""

    def _ask(self, word: str, argument: bytes, descriptors: Sequence[int], seconds: float) -> str | None:
        """Send a request, and return the answer, None if none comes.

        The answer comes through a connection of its own, so any thread may ask at any time, also when the
        garbage collector closes a pool while another question is under way.
        """
        here, there = Connection.pair()
        give_up = time.monotonic() + seconds
        with contextlib.closing(here):
            # A question that is half sent, or lost, would be the last of all threads.
            with contextlib.closing(there), interrupts_held():
                handles = there.socket.fileno(), *descriptors
                self._connection.send(word.encode(), b" ", argument, handles=handles)
                while not self._connection.flush():
                    if time.monotonic() > give_up:
                        return None
                    time.sleep(FULL_SECONDS)
            if not _comes(here, seconds):
                return None
            answer = here.receive()
        if self._answering.acquire(blocking=False):
            try:
                self._connection.take_acknowledgements()
            finally:
                self._answering.release()
        assert answer is not None
        return bytes(answer[0]).decode()

    def _killed(self) -> PescadorError:
        """Kill the process, and return what to raise."""
        state = process_state(self.pid)
        self._fate = f"did not answer (it was {state})"
        end([self._process], 0, signal.SIGKILL)
        return PescadorError(
            f"process {self.pid}, from which workers are forked, did not answer 'fork' for "
            f"{ANSWER_SECONDS} s (it was {state}), and was killed, which ends all workers that it started. "
            "Did somebody stop it, or is the machine out of memory or overloaded? The next iteration starts "
            "another one; start_method='spawn' does without"
        )


def _end(connection: Connection, process: Process, pid: int) -> None:
    """End a forkserver, except in a forked child, which inherits the finalizers of its parent."""
    if pid == os.getpid():
        connection.end()
        end([process], END_SECONDS, signal.SIGKILL)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _comes(connection: Connection, seconds: float) -> bool:
    """Wait until there is a message, or the end, on a connection; return whether one came in time."""
    poll = new_poll()
    poll.register(connection.socket, POLLIN)
    # One second at a time: while this process is stopped (Ctrl-Z), which stops the other, too, one of them
    # passes at most.
    return any(poll.poll(1000 * min(1, seconds - start)) for start in range(math.ceil(seconds) or 1))


def _leave_to_parent() -> None:
    """Forget, in a process that was forked, the forkserver of its parent."""
    # A fork may find the lock held by a thread that the child does not have.
    forkserver, Forkserver.current, Forkserver._lock = Forkserver.current, None, threading.RLock()
    if forkserver is not None:  # where it has no pidfd, it sees the end of its parent by that of this
        forkserver._connection.socket.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class Grandchild(Process):
    """A worker that a forkserver forked, which is asked how it ended."""

    def __init__(self, pid: int, forkserver: Forkserver) -> None:
        super().__init__(pid)
        self._forkserver = forkserver
        self._is_orphan = False  # it ended with the forkserver

    def _reap(self, seconds: float = REAP_SECONDS) -> bool:
        try:
            status = self._forkserver.reap(self.pid, seconds)
        except (EOFError, OSError):
            status = ""
            if not self._forkserver.is_alive(REAP_SECONDS):  # or it cannot be asked, for want of descriptors
                # The kernel kills its workers with it, and nobody can ask how they ended.
                self._is_orphan = True
                return self.pidfd is not None or process_state(self.pid) in ("gone", psutil.STATUS_ZOMBIE)
        if status == "running":
            return False
        if status:
            self._returncode = int(status)
        return bool(status) or self.pidfd is not None  # which is readable, or nobody would reap

    def exit_cause(self) -> str:
        """Return how the process ended, in words that follow its name."""
        if self._has_ended and self._returncode is None and not self._is_orphan:
            self._reap(CAUSE_SECONDS)  # the forkserver was late
        if self._has_ended and self._is_orphan:
            return (
                f"was killed by SIGKILL together with process {self._forkserver.pid}, from which workers are "
                f"forked, and which {self._forkserver.exit_cause()}"
            )
        return super().exit_cause()
