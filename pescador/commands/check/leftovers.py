"""What a stream leaves behind when it is closed: processes, threads, open files, and files that it made.

What appears in the folders of shared memory and of temporary files may be another program's. It is believed
only if each opening leaves some.
"""

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


def resources() -> set[Left]:
    """Return what is there now."""
    found = {Left("open file", text) for text in _open_files()}
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(Left("process", f"{child.pid}: {' '.join(child.cmdline()):.60}"))
    found |= {Left("thread", f"{thread.name} ({thread.ident})") for thread in threading.enumerate()}
    for kind, folder in (("shared memory", SHARED_MEMORY), ("temporary file", tempfile.gettempdir())):
        with suppress(OSError), os.scandir(folder) as entries:
            found |= {Left(kind, entry.path) for entry in entries if _is_ours(entry)}
    return found


def left_since(before: set[Left]) -> set[Left]:
    """Return what is there now and was not before, once what was ended had time to go."""
    give_up = time.monotonic() + GRACE
    while left := resources() - before:
        if time.monotonic() > give_up:
            break
        gc.collect()
        time.sleep(0.02)
    return left


def _open_files() -> Iterator[str]:
    folder = "/proc/self/fd"
    if os.path.isdir(folder):
        for fd in os.listdir(folder):
            with suppress(OSError):  # that of listdir
                yield f"{os.readlink(f'{folder}/{fd}')} (descriptor {fd})"
        return
    with suppress(psutil.Error):
        yield from (f"{file.path} (descriptor {file.fd})" for file in psutil.Process().open_files())


def _is_ours(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid == os.getuid()
    return False
