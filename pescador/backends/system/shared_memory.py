"""Shared memory that nothing can leave behind.

A segment is POSIX shared memory of mode 0600. Its name is removed right after it is created; from then on it
is known by its file descriptor, which is passed to other processes through Unix sockets, and the kernel frees
it with the last process that uses it, however that ends. A process that is killed between the two system
calls leaves a name, from which a later one recognises the orphan: ``pescador-<token of its owner>-<random>``
(see :mod:`.owner`).

(:class:`multiprocessing.shared_memory.SharedMemory` is the same memory, but before Python 3.13 it
starts a tracker process, and it keeps the name for as long as the segment.)
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import secrets
import stat
import sys

import numpy as np
import numpy.typing as npt

from ...exceptions import PescadorError
from .owner import is_dead, parse, this_owner

try:
    import _posixshmem
except ImportError:  # pragma: no cover  # Windows
    _posixshmem = None  # type: ignore[assignment]

__all__ = ["ALIGNMENT", "Bytes", "address", "adopt", "create", "free_bytes", "private", "reclaim"]

Bytes = npt.NDArray[np.uint8]

PREFIX = "pescador-"
FOLDER = "/dev/shm"
ALIGNMENT = 64  # bytes: a cache line, and what JAX needs to take over an array without copying it


def create(n_bytes: int, remedy: str) -> tuple[int, Bytes]:
    """Create a segment of at least 1 byte and reserve its memory; return its descriptor, and that mapped.

    The caller closes the descriptor. The memory is mapped for as long as the array or a view of it lives.
    `remedy` is what the user can do where there is not enough shared memory, and becomes part of the error.
    """
    fd = _open_unnamed()
    try:
        _reserve(fd, n_bytes, remedy)
        return fd, adopt(fd, n_bytes)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise _cannot_create(error) from error
        raise


def adopt(fd: int, n_bytes: int, private: bool = False) -> Bytes:
    """Map a segment; the base of the array is the mapping.

    What is written into a `private` mapping stays in this process.
    """
    flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    try:
        return np.ndarray(n_bytes, np.uint8, mmap.mmap(fd, n_bytes, flags=flags))
    except (OSError, ValueError) as error:
        raise PescadorError(
            f"cannot map {n_bytes:,} bytes of shared memory: {error}. Is there memory left ('ulimit -v')?"
        ) from error


def private(n_bytes: int) -> Bytes:
    """Return memory of this process alone, aligned as a record is."""
    memory: Bytes = np.empty(n_bytes + ALIGNMENT, np.uint8)
    start = -int(memory.__array_interface__["data"][0]) % ALIGNMENT
    return memory[start : start + n_bytes]


def address(memory: memoryview | mmap.mmap) -> int:
    """Return where in this process some memory is."""
    return int(np.frombuffer(memory, np.uint8).__array_interface__["data"][0])


def free_bytes() -> int | None:
    """Return how much shared memory is free; None where that cannot be told."""
    try:
        status = os.statvfs(FOLDER)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize


def reclaim(dry_run: bool = False) -> list[str]:
    """Remove segments of this user whose owners are dead, and return the names of those that are gone.

    In a dry run these are the names that would be removed.
    """
    try:
        names = sorted(os.listdir(FOLDER))
    except OSError:  # there is no such folder, or it is not ours to read
        return []
    return [name for name in names if _is_orphan(name) and (dry_run or _unlink("/" + name))]


def _is_orphan(name: str) -> bool:
    token, _, tail = name.removeprefix(PREFIX).rpartition("-")
    owner = parse(token)
    if not name.startswith(PREFIX) or not re.fullmatch("[0-9a-f]{8}", tail) or owner is None:
        return False
    try:
        status = os.lstat(os.path.join(FOLDER, name))
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and is_dead(owner)


def _open_unnamed() -> int:
    if _posixshmem is None:
        raise PescadorError("shared memory needs a POSIX system; use backend='thread' here")
    # Where nobody can list names, nobody finds orphans, and a name may be too short for an owner.
    owner = f"{this_owner()}-" if os.path.isdir(FOLDER) else ""
    name = f"/{PREFIX}{owner}{secrets.token_hex(4)}"
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
    try:
        fd: int = _posixshmem.shm_open(name, flags, mode=0o600)
    except OSError as error:
        raise _cannot_create(error) from error
    _unlink(name)
    return fd


def _cannot_create(error: OSError) -> PescadorError:
    return PescadorError(
        f"cannot create shared memory: {error.strerror} (errno {error.errno}). Is {FOLDER} there and "
        "writable, and are there file descriptors left ('ulimit -n')?"
    )


def _unlink(name: str) -> bool:
    """Remove a name, and return whether that was done: somebody else may have, or it may not be ours."""
    try:
        _posixshmem.shm_unlink(name)
    except OSError:
        return False
    return True


def _reserve(fd: int, n_bytes: int, remedy: str) -> None:
    """Give a segment its memory now, so that writing to it can't fail later."""
    try:
        os.ftruncate(fd, n_bytes)
        if hasattr(os, "posix_fallocate"):
            while True:
                try:
                    os.posix_fallocate(fd, 0, n_bytes)
                    break
                except InterruptedError:
                    continue
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise PescadorError(
                f"no shared memory of {n_bytes:,} bytes can be made: to the system it is a file, and this "
                f"process may not make one of that size. Raise the limit ('ulimit -f'). {remedy}"
            ) from error
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EINVAL):
            raise
        free = free_bytes()
        there = "" if free is None else f", where {free:,} bytes are free"
        place = FOLDER if sys.platform == "linux" else "the system"
        raise PescadorError(
            f"there is not enough shared memory: {n_bytes:,} bytes were asked of {place}{there}. {remedy}"
        ) from error
