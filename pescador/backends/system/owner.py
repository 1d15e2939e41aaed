"""Who owns a process.

A number of a process says little: it is used again, it means another process in another pid namespace
(a container), and it does not outlive a boot. So an *owner* is a number together with all that makes it
unique, and written as a *token* in command lines of workers::

    <pid>-<start time>-<pid namespace>-<time namespace>-<boot>

What this process cannot find out about itself is empty there. A start time has a letter for its form, since
those of two forms tell nothing about each other, and is shifted by a time namespace.

That an owner is dead must be proven (:func:`is_dead`), for the workers of one that is thought dead are
killed. In doubt it lives. Looking never fails: what is missing, hidden or not as expected is unknown.
"""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

from .later import psutil
from .pids import pids_are_ours, proc

__all__ = ["Owner", "is_dead", "parse", "start_time", "this_owner"]

_NUMBER = "(?:0|[1-9][0-9]{0,19})"
_TOKEN = re.compile(
    rf"([1-9][0-9]{{0,8}})-([tp]{_NUMBER}|)-({_NUMBER}|)-({_NUMBER}|)-([0-9a-f]{{32}}|)"  # as in Owner
)

_this: Owner | None = None  # this process, or after a fork its parent; threads that race write the same


class Owner(NamedTuple):
    """A process, told apart from all others. Text is empty where it is unknown."""

    pid: int
    started: str
    """``t`` and clock ticks since boot (Linux), or ``p`` and seconds since 1970 (psutil, elsewhere)."""
    pid_namespace: str
    time_namespace: str
    boot: str

    def __str__(self) -> str:
        return "-".join(map(str, self))


def parse(token: str) -> Owner | None:
    """Return the owner that a token names; None if this is not exactly a token."""
    match = _TOKEN.fullmatch(token)
    return Owner(int(match[1]), *match.groups()[1:]) if match else None


def this_owner() -> Owner:
    """Return this process."""
    global _this
    if _this is None or _this.pid != os.getpid():
        pid = os.getpid()
        _this = Owner(pid, start_time(pid), _namespace("pid"), _namespace("time"), _boot())
    return _this


def is_dead(owner: Owner) -> bool:
    """Whether an owner has certainly ended.

    It has if it is of this boot and of the namespaces of this process, /proc shows the processes of these,
    and the kernel knows no process of that number, or one that started at another time.
    """
    this = this_owner()
    place = owner[2:]
    if not all(place) or place != this[2:] or not pids_are_ours():
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # there is one, of another user
        pass
    started = start_time(owner.pid)
    return started[:1] == owner.started[:1] and started != owner.started


def start_time(pid: int) -> str:
    """Return when a process started, with the letter of the form; '' if that is unknown, or it is gone."""
    if not pids_are_ours():
        return ""
    try:
        if sys.platform != "linux":
            return f"p{psutil.Process(pid).create_time():.0f}"
        with open(f"{proc()}/{pid}/stat", "rb") as file:
            # The name in parentheses may hold spaces. Field 22 is in clock ticks since boot, which no
            # adjustment of the clock changes.
            return f"t{int(file.read().rpartition(b')')[2].split()[19])}"
    except Exception:
        return ""


def _namespace(kind: str) -> str:
    """Return the number of a namespace of this process, which is unique as long as it has processes."""
    folder = f"{proc()}/self/ns"
    try:
        return str(os.stat(f"{folder}/{kind}").st_ino)
    except FileNotFoundError:
        return "0" if os.path.exists(f"{folder}/pid") else ""  # a kernel that has none of this kind has one
    except OSError:
        return ""


def _boot() -> str:
    try:
        with open(f"{proc()}/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip().replace("-", "")
    except (OSError, ValueError):
        return ""
    return boot if re.fullmatch("[0-9a-f]{32}", boot) else ""
