"""Finding and reclaiming what a killed process left behind.

Workers watch their consumer and end with it, and shared memory is freed with its last user, so there is next
to nothing to find: a worker that was stopped (SIGSTOP) when its consumer died. It carries the token of its
owner (see :mod:`.owner`), unless it was forked from its consumer: then it has the command line of that, and
is not found. It is touched only if that is certainly dead and it belongs to the user of this process; root
leaves those of others alone, too.

What cannot be looked at is left alone. No failure of looking reaches the caller, and what is reported is
what has really ended. Where there are no pidfds, and outside Linux, no process is ended: another one might
come to its number between the look and the signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from .later import psutil
from .owner import Owner, is_dead, parse, this_owner
from .pids import KILL, pids_are_ours, proc, watch, watched_by
from .polling import POLLIN, new_poll

__all__ = ["command_line", "owner_of", "processes", "reclaim", "reclaim_nothing", "reclaim_once"]

MARK = "pescador-process-"
"""Start of the last argument of our processes, before the token of their consumer.

It is not that of earlier versions, which would take this token for one of theirs, and its owner for dead.
"""

PROGRAM = "import sys; sys.path[:] = [*["
"""Start of what their interpreter runs."""

PATIENCE = 2.0  # seconds in which workers end with their consumer
DYING_SECONDS = 2.0  # in which one that was killed is gone, unless it is stuck in the kernel

_reclaimed_by = 0  # the process that has reclaimed: a forked child inherits this, and does so itself


def command_line(interpreter: list[str], path: list[str], code: str) -> list[str]:
    """Return the command line of a process of ours that imports from `path` and runs some code.

    Behind `path` comes what the interpreter finds itself, above all the standard library.
    """
    program = f"{PROGRAM}{ascii(path)[1:]}, *filter(None, sys.path)]; {code}"
    return [*interpreter, "-c", program, f"{MARK}{this_owner()}"]


def owner_of(arguments: list[str]) -> Owner | None:
    """Return the consumer of the process that has this command line; None if it is none of ours.

    Others have our words in their command line, too: ``grep pescador-process-1``, ``strace python -c ...``.
    """
    match arguments:
        case [_, *options, "-c", code, mark] if code.startswith(PROGRAM) and mark.startswith(MARK):
            rest = iter(options)
            for option in rest:
                if option in ("-X", "-W"):
                    next(rest, None)
                elif not option.startswith("-"):
                    return None
            return parse(mark.removeprefix(MARK))
    return None


def processes() -> list[int]:
    """Return pids of worker processes whose consumer is dead."""
    try:
        return [pid for pid in _pids() if _is_orphan(pid)] if pids_are_ours() else []
    except Exception:
        return []


def reclaim(dry_run: bool = False) -> list[str]:
    """Kill orphaned workers; return what was ended, in words.

    In a dry run that is what would be.
    """
    return [f"process {pid}" for pid in _reclaim_processes(dry_run)]


def reclaim_nothing() -> None:
    """Have this process leave alone what it would reclaim when it starts workers."""
    global _reclaimed_by
    _reclaimed_by = os.getpid()


def reclaim_once() -> None:
    """Reclaim what is left of others, the first time that this process starts workers."""
    global _reclaimed_by
    if _reclaimed_by != os.getpid():
        _reclaimed_by = os.getpid()
        for found in reclaim():
            import logging  # for this alone

            logging.getLogger("pescador").info("reclaimed %s, whose owner is dead", found)


def _is_orphan(pid: int) -> bool:
    try:
        owner = owner_of(_arguments(pid))
        return owner is not None and is_dead(owner) and psutil.Process(pid).uids().real == os.getuid()
    except Exception:  # it is gone, or hidden, or psutil stumbles
        return False


# These look at all processes, when a program starts its first worker. On Linux, psutil would take ten times
# as long.


def _pids() -> list[int]:
    if sys.platform != "linux":
        return psutil.pids()
    return [int(name) for name in os.listdir(proc()) if name.isdecimal()]


def _arguments(pid: int) -> list[str]:
    """Return the command line of a process."""
    if sys.platform != "linux":
        return psutil.Process(pid).cmdline()
    with open(f"{proc()}/{pid}/cmdline", "rb", buffering=0) as file:
        return [os.fsdecode(argument) for argument in file.read().split(b"\0")[:-1]]


def _reclaim_processes(dry_run: bool) -> list[int]:
    if watched_by() != "pidfd":
        return []
    with contextlib.ExitStack() as stack:
        pids: dict[int, int] = {}  # by the descriptor that watches it
        for pid in processes():
            with contextlib.suppress(OSError):  # there are no descriptors left
                descriptor = watch(pid)
                if descriptor is not None:
                    stack.callback(os.close, descriptor)
                    # Looked at again: the descriptor may be of a process that came to this number meanwhile.
                    if _is_orphan(pid):
                        pids[descriptor] = pid
        # Most are about to end by themselves, because their consumer ended a moment ago.
        for descriptor in _ended(pids, PATIENCE):
            del pids[descriptor]
        if dry_run:
            return list(pids.values())
        for descriptor in pids:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, KILL)
        return [pids[descriptor] for descriptor in _ended(pids, DYING_SECONDS)]


def _ended(descriptors: dict[int, int], seconds: float) -> list[int]:
    """Wait so many seconds at most for all these processes; return the descriptors of those that ended."""
    deadline = time.monotonic() + seconds
    poll = new_poll()
    for descriptor in descriptors:
        poll.register(descriptor, POLLIN)
    ended: list[int] = []
    while len(ended) < len(descriptors):
        now_ended = poll.poll(max(0, deadline - time.monotonic()) * 1000)
        if not now_ended:
            break
        for descriptor, _ in now_ended:
            poll.unregister(descriptor)
            ended.append(descriptor)
    return ended
