"""Processes by their number: looking at them, watching them, and sending them signals.

psutil finds processes in /proc, while system calls take the numbers of this process's own pid namespace.
Nothing here looks for processes unless both mean the same (:func:`pids_are_ours`), so that no stranger is
looked at, or ended. Looking never fails: what is missing, hidden or not as expected is unknown, or not there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
from typing import Any

from .later import psutil

__all__ = [
    "KILL",
    "become_subreaper",
    "end_with_parent",
    "has_ended",
    "offspring",
    "pids_are_ours",
    "proc",
    "process_state",
    "runs",
    "tell",
    "watch",
    "watched_by",
]

KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)  # which Windows does not have: its SIGTERM is as hard

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def proc() -> str:
    """Return where psutil looks for processes, which a program may have changed."""
    return str(getattr(sys.modules.get("psutil"), "PROCFS_PATH", "/proc"))


def pids_are_ours() -> bool:
    """Whether psutil knows processes by the numbers that the system calls of this process take.

    /proc may be missing, or be that of another pid namespace (``unshare --pid --fork`` without
    ``--mount-proc``), where the same number is another process.
    """
    if sys.platform != "linux":
        return True
    pid = str(os.getpid())
    try:
        if os.readlink(f"{proc()}/self") != pid:
            return False
        with open(f"{proc()}/self/status", "rb") as file:
            # The number of this process in the namespace of /proc, then those in the ones below it.
            numbers = [line.split()[1:] for line in file if line.startswith(b"NSpid:")]
    except OSError:
        return False
    return numbers in ([], [[pid.encode()]])


def process_state(pid: int) -> str:
    """Return what the system says of a process: 'running', 'sleeping', 'stopped', 'disk-sleep', ...

    It is 'gone' if there is no such process, and 'in an unknown state' where that cannot be told.
    """
    try:
        return str(psutil.Process(pid).status()) if pids_are_ours() else "in an unknown state"
    except psutil.NoSuchProcess:
        return "gone"
    except Exception:
        return "in an unknown state"


def offspring(pid: int) -> list[psutil.Process]:
    """Return what a process has started, directly or not; nothing where that cannot be told."""
    try:
        return psutil.Process(pid).children(recursive=True) if pids_are_ours() else []
    except Exception:
        return []


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; a child of this process that has is reaped."""
    with contextlib.suppress(psutil.Error):
        if process.is_running():  # no other process has its number now
            if hasattr(os, "WNOHANG"):
                with contextlib.suppress(ChildProcessError):  # it is the child of another one
                    return not os.waitpid(process.pid, os.WNOHANG)[0]
            return process.status() != psutil.STATUS_ZOMBIE
    return False


def has_ended(child: int) -> bool:
    """Whether a child of this process has ended, which is then reaped; what is no child of it has."""
    try:
        return bool(os.waitpid(child, os.WNOHANG)[0])
    except ChildProcessError:
        return True


def tell(process: psutil.Process, number: int) -> None:
    """Send a signal to a process; one that is stopped goes on, or it would not see the signal."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
        if KILL != signal.SIGTERM:
            process.send_signal(signal.SIGCONT)


def watch(pid: int) -> int | None:
    """Return a descriptor that is readable once a process has ended; None if there is no such thing."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else _kqueue(pid)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise  # who goes on without it does not hear of the end of the process
        return None


def watched_by() -> str | None:
    """Return what tells of the end of a process on this system; None if nothing does."""
    if hasattr(os, "pidfd_open"):
        return "pidfd"
    return "kqueue" if hasattr(select, "kqueue") else None


def _kqueue(pid: int) -> int:
    """Return a descriptor that is readable once a process has ended, on macOS and the BSDs."""
    module: Any = select
    with contextlib.closing(module.kqueue()) as queue:
        events = [module.kevent(pid, module.KQ_FILTER_PROC, module.KQ_EV_ADD, module.KQ_NOTE_EXIT)]
        queue.control(events, 0)
        return os.dup(queue.fileno())


def become_subreaper() -> None:
    """Have processes whose parents end become children of this one, where the system knows that."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, also if it is stuck in compiled code.

    A parent that has ended already is not noticed by the kernel any more, so this process exits at once.
    Where the kernel has no such service, nothing happens.
    """
    if _prctl(PR_SET_PDEATHSIG, KILL) and os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    return True
