"""What a stream leaves behind when it is closed: processes, threads, open files, and files that it made."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

import psutil

__all__ = ["Left", "left_since", "resources"]

SHARED_MEMORY: Final = "/dev/shm"  # where Linux shows what has a name
GRACE: Final = 1.0  # seconds in which what was ended may be gone


class Left(NamedTuple):
    """Something that a stream may leave behind."""

    kind: str
    text: str
    is_ours: bool = True
    """Whether it is of this process, and no other program can have made it."""


def resources() -> set[Left]:
    """Return what is there now."""
    return set(_resources())


def left_since(before: set[Left]) -> set[Left]:
    """Return what is there now and was not before, once what was ended had time to go."""
    give_up = time.monotonic() + GRACE
    while (left := resources() - before) and time.monotonic() < give_up:
        gc.collect()
        time.sleep(0.02)
    return left


def _resources() -> Iterator[Left]:
    for thread in threading.enumerate():
        if not thread.name.startswith(
            "asyncio_"
        ):  # those of an event loop, which a library may keep, as zarr does
            yield Left("thread", f"{thread.name} ({thread.ident})")
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE:
                yield Left("process", f"{child.pid}: {' '.join(child.cmdline()):.60}")
    with suppress(psutil.Error):
        for file in psutil.Process().open_files():
            yield Left("open file", f"{file.path} (descriptor {file.fd})")
    for kind, folder in (("shared memory", SHARED_MEMORY), ("temporary file", tempfile.gettempdir())):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == getattr(os, "getuid", int)():
                        yield Left(kind, entry.path, is_ours=False)
