"""A process as its consumer sees it: whether it has ended, how, and ending it.

A process is watched through a *pidfd*, which becomes readable when it ends, whoever its parent is and
whatever copies of its sockets are around; on macOS through a kqueue, which does, too. Where there is neither,
it is looked at every few milliseconds.

Any thread may call anything here. The lock is held to note an end, not to wait for one; a worker that was
forked by the forkserver then asks that, for REAP_SECONDS at most. An end is noted once, so it is read without
the lock.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from ..system.later import psutil
from ..system.pids import KILL, offspring, runs, tell, watch
from ..system.polling import POLLIN, new_poll
from ..system.waiting import in_slices

__all__ = ["Process", "discard", "end"]

# Seconds that a process has to end after SIGTERM, and after SIGKILL, which takes longer only where the
# system is slow to give back its memory.
TERMINATE_SECONDS = 0.3
KILL_SECONDS = 5.0

# When to tell that a process is waited for.
NOTICE_SECONDS = 1.0

LOOK_SECONDS = 0.005  # between two looks, where nothing tells of an end

HINTS = {
    "SIGKILL": "; did the system run out of memory?",
    "SIGABRT": "; a library gave up, often for want of descriptors, threads or memory",
    "SIGSEGV": "; a fault in compiled code, most likely of a library that the stream uses",
    "SIGBUS": "; is the shared memory full, or a mapped file truncated?",
}


class Process:
    """A process that this one has just started; it is killed if it cannot be watched.

    Attributes
    ----------
    pid : int
        Its number, which may be that of another process once this one has ended.
    pidfd : int or None
        Readable when it has ended, and closed when that was noted; None if there is none.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._returncode: int | None = None
        self._has_ended = False
        self._lock = threading.RLock()  # the garbage collector may close another pool meanwhile
        try:
            self.pidfd = watch(pid)
        except BaseException:
            discard(pid)
            raise

    def wait(self, seconds: float) -> bool:
        """Wait until the process has ended, at most so many seconds; return whether it has."""
        if not self._look_after(0):
            in_slices(self._look_after, seconds)
        return self._has_ended

    def _look_after(self, seconds: float) -> bool:
        if not self._has_ended and self._wait(seconds):
            self._look()
        return self._has_ended

    def _wait(self, seconds: float) -> bool:
        """Wait for the end, at most so many seconds; return whether to look for it."""
        pidfd = self.pidfd  # if another thread closes it now, this wait may last a slice too long
        if pidfd is None:
            time.sleep(min(seconds, LOOK_SECONDS))
            return True
        poll = new_poll()
        poll.register(pidfd, POLLIN)
        return bool(poll.poll(1000 * seconds))

    def _look(self) -> None:
        """Note the end of the process, if it has ended."""
        with self._lock:
            if not self._has_ended and self._reap():
                self._has_ended = True
                if self.pidfd is not None:
                    os.close(self.pidfd)
                    self.pidfd = None

    def _reap(self) -> bool:
        """Take the exit status of the process if it has ended, and return whether it has."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else took its exit status
            return True
        if pid:
            self._returncode = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def exit_cause(self) -> str:
        """Return how the process ended, in words that follow its name."""
        if not self._has_ended:
            return "is not used any more"
        code = self._returncode
        if code is None:
            return "ended"
        if code >= 0:
            return f"exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}{HINTS.get(name, '')}"

    def kill(self, number: int) -> None:
        """Send a signal to the process if it has not ended yet."""
        with self._lock:  # once it is reaped, its number may be that of another process
            if not self._has_ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)


class WindowsProcess(Process):
    """A process that is known by a handle, as they are on Windows, where there are no signals."""

    def __init__(self, interpreter: subprocess.Popen[bytes]) -> None:
        self._interpreter = interpreter
        super().__init__(interpreter.pid)

    def _wait(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._interpreter.wait(seconds)
        return True

    def _reap(self) -> bool:
        self._returncode = self._interpreter.poll()
        return self._returncode is not None


def discard(pid: int) -> None:
    """Kill a process that has just been started, and that nobody else knows of."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, KILL)
        os.waitpid(pid, 0)


def end(
    processes: Sequence[Process],
    timeout: float | None,
    number: int = signal.SIGTERM,
    patience: float = TERMINATE_SECONDS,
    notice: Callable[[Sequence[Process]], None] | None = None,
) -> None:
    """Wait for processes that were asked to end; send a signal to those that don't, and then kill them.

    They are waited for side by side, for `timeout` seconds (None is no bound), and for `patience` seconds
    after the signal `number`. Whatever a process has started that has to be ended goes with it, by SIGTERM
    and, if need be, SIGKILL. `notice` is called with those that are left after NOTICE_SECONDS, if that is
    not the end of the wait.
    """
    now = time.monotonic()
    soon, deadline = now + NOTICE_SECONDS, now + (math.inf if timeout is None else timeout)
    left = _wait_for(processes, min(deadline, soon))
    if left and notice is not None and deadline > soon:
        notice(left)
    left = _wait_for(left, deadline)
    started: list[psutil.Process] = []  # by those that have to be ended
    for signal_number, seconds in ((number, patience), (KILL, KILL_SECONDS)):
        started += [child for process in left for child in offspring(process.pid)]
        for process in left:
            process.kill(signal_number)
            if signal_number == signal.SIGTERM != KILL:
                process.kill(signal.SIGCONT)  # one that is stopped would not see the other signal
        for child in started:
            tell(child, min(signal_number, signal.SIGTERM))
        deadline = time.monotonic() + seconds
        left = _wait_for(left, deadline)
        while signal_number != KILL and any(map(runs, started)) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)


def _wait_for(processes: Sequence[Process], deadline: float) -> list[Process]:
    """Wait for processes until then, and return those that have not ended."""
    for process in processes:
        process.wait(deadline - time.monotonic())
    return [process for process in processes if not process.wait(0)]
