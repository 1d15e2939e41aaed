"""Who owns a process or a segment: pid and start time, because pids are used again."""

from __future__ import annotations

import errno
import os

import psutil

__all__ = ["owner_is_alive", "start_time", "this_owner", "watch"]

_this: tuple[int, str] | None = None


def start_time(pid: int) -> str:
    """Return when a process started, as a word that is the same whenever one asks; '' if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold spaces. Field 22 is in clock ticks since boot, which no
            # adjustment of the clock changes.
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        pass
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def this_owner() -> str:
    """Return ``<pid>-<start time>`` of this process."""
    global _this
    if _this is None or _this[0] != os.getpid():
        _this = os.getpid(), start_time(os.getpid())
    return f"{_this[0]}-{_this[1]}"


def owner_is_alive(pid: str, started: str) -> bool:
    """Whether the process that started then runs now. In doubt, it does."""
    if not pid.isdigit():
        return True
    return start_time(int(pid)) == started


def watch(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; None where there is no such thing."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise  # who goes on without it does not hear of the end of the process
        return None
