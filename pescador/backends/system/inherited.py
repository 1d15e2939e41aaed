"""What a process that is started takes over from the one that starts it, beside its environment and files.

A process that was started a while ago is like one that is started now, as long as this is the same.
"""

from __future__ import annotations

import contextlib
import os

from .pids import proc

__all__ = ["inherited"]

# Lines of /proc/thread-self/status: rights, and where threads may run.
_RIGHTS = (b"Umask:", b"Uid:", b"Gid:", b"Groups:", b"Cap", b"NoNewPrivs:", b"Seccomp:")
_PLACES = (b"Cpus_allowed:", b"Mems_allowed:")


def inherited() -> list[object]:
    """Return what a process takes over that the calling thread starts now, to be compared with another time.

    Where there is no /proc, limits and the mask of file modes are not looked at.
    """
    found: list[object] = [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()]
    found += [os.getpgrp(), os.getsid(0), os.getpriority(os.PRIO_PROCESS, 0)]
    found += [os.isatty(descriptor) for descriptor in (1, 2)]  # how Python buffers them
    folder = f"{proc()}/thread-self"
    with contextlib.suppress(OSError):
        with open(f"{folder}/status", "rb") as file:
            found += [line for line in file if line.startswith(_RIGHTS + _PLACES)]
        for name in ("limits", "cgroup"):
            with open(f"{folder}/{name}", "rb") as file:
                found.append(file.read())
        found += [os.readlink(f"{folder}/{name}") for name in ("root", *_namespaces(folder))]
    return found


def _namespaces(folder: str) -> list[str]:
    return [f"ns/{name}" for name in sorted(os.listdir(f"{folder}/ns"))]
