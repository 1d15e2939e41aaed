"""How much memory, and how many processes, this process may still take.

That is what the machine has, or less: a container or a job is a *control group* (cgroup), within others, each
of which may have a limit. Looking never fails: what is missing, hidden or not as expected is no limit.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .later import psutil

__all__ = ["Room", "control_groups", "free_memory", "number_in"]

CGROUPS = "/sys/fs/cgroup"
NO_LIMIT = 1 << 60  # about what version 1 says where there is none

# Files with the limit and with what is used, and the fields of memory.stat that count what is used, but
# could be had: files that are cached. Those of version 2, then those of version 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


class Room(NamedTuple):
    """How many bytes are free, and of what."""

    n_bytes: int
    where: str


def free_memory() -> Room:
    """Return how much memory is free, by the limit that leaves the least."""
    rooms = [Room(sys.maxsize, "as far as can be told")]
    with contextlib.suppress(Exception):
        rooms.append(Room(psutil.virtual_memory().available, "of this machine"))
    for folder in control_groups("memory"):
        for limit_file, used_file, cached in _MEMORY_FILES:
            limit, used = number_in(f"{folder}/{limit_file}"), number_in(f"{folder}/{used_file}")
            if limit is not None and used is not None and limit < NO_LIMIT:
                fields = _fields(f"{folder}/memory.stat")
                free = limit - used + sum(fields.get(name, 0) for name in cached)
                where = f"of the {limit:,} of the container or job (control group {folder})"
                rooms.append(Room(max(0, free), where))
    return min(rooms)


def control_groups(controller: str) -> Iterator[str]:
    """Give the control group of this process and those around it, of version 2 and of version 1."""
    try:
        with open("/proc/self/cgroup", errors="surrogateescape") as file:
            lines = [line.split(":", 2) for line in file.read().splitlines() if line.count(":") >= 2]
    except OSError:
        return
    for number, controllers, path in lines:
        if number == "0" or controller in controllers.split(","):
            root = CGROUPS if number == "0" else f"{CGROUPS}/{controller}"
            folders = [folder for folder in path.split("/") if folder]
            for depth in range(len(folders), -1, -1):  # a container may see the root alone
                yield "/".join([root, *folders[:depth]])


def number_in(path: str) -> int | None:
    """Return the number in a file; None if there is no such file, or it says 'max'."""
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _fields(path: str) -> dict[str, int]:
    try:
        with open(path) as file:
            return {name: int(value) for name, value in (line.split() for line in file)}
    except (OSError, ValueError):
        return {}
