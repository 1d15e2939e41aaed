"""Finding and reclaiming what a killed process left behind.

Workers watch their consumer and end with it, and segments lose their names at once, so there is next to
nothing to find: a worker that was stopped (SIGSTOP) when its consumer died, or a segment whose maker was
killed between two system calls. Both carry the pid and the start time of their owner, and are touched
only if no such process runs.
"""

from __future__ import annotations

import contextlib
import os
import sys

import psutil

from . import segment
from .owner import owner_is_alive

__all__ = ["MARK", "processes", "reclaim", "reclaim_nothing", "reclaim_once"]

MARK = "pescador-worker-"
"""Start of the last argument of our processes, before ``<pid>-<start time>`` of their consumer."""

PATIENCE = 2.0  # seconds in which workers end with their consumer

_reclaimed_by = 0


def processes() -> list[psutil.Process]:
    """Return worker processes whose consumer is dead."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            arguments = process.cmdline()
            if arguments and arguments[-1].startswith(MARK):
                pid, _, started = arguments[-1].removeprefix(MARK).partition("-")
                if not owner_is_alive(pid, started):
                    found.append(process)
    return found


def reclaim(dry_run: bool = False) -> list[str]:
    """Kill orphaned workers and remove orphaned segments; return what was found, in words."""
    found = []
    # Most are about to end by themselves, because their consumer ended a moment ago.
    for process in psutil.wait_procs(processes(), timeout=PATIENCE)[1]:
        found.append(f"process {process.pid}")
        if not dry_run:
            with contextlib.suppress(psutil.Error):
                process.kill()
    return found + [f"segment {name}" for name in segment.reclaim(dry_run)]


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
            print(f"pescador: reclaimed {found}, whose owner is dead", file=sys.stderr)
