"""Shared memory that nothing can leave behind.

A segment has no name that outlives its maker: the system frees it with the last process that uses it,
however that ends. What it is depends on what the system has:

memfd           Linux. Its descriptor is passed to other processes. It does not lie in /dev/shm, of which a
                container has little; what bounds it is the memory of the machine or of the container.
POSIX shared    where there are no memfds, as on macOS. Its name is removed right after it is made, and it is
memory          known by its descriptor then. macOS cannot map it copy-on-write, so what is to be mapped so is
                a temporary file, whose name is removed as well.
named mapping   Windows, where descriptors cannot be passed. The name is gone with the last mapping.

Memory is reserved when the segment is made, so writing to it cannot fail later, but for macOS, which has no
means for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...exceptions import PescadorError
from .limits import Room, free_memory

__all__ = [
    "ALIGNMENT",
    "Bytes",
    "Handle",
    "Named",
    "address",
    "adopt",
    "close_all",
    "copies_of",
    "create",
    "keep_freed_memory",
    "kind",
    "private",
]

Bytes = npt.NDArray[np.uint8]

PREFIX = "pescador-"
NAME_BYTES = len(PREFIX) + 16
STEP_BYTES = 1 << 22  # that are reserved at a time
SPARED_BYTES = 1 << 24  # that are left free, so that a few others may take a step at the same time
ALIGNMENT = 64  # bytes: a cache line, and what JAX needs to take over an array without copying it


class Named(NamedTuple):
    """A segment of Windows. It is there as long as somebody has this, or the segment mapped."""

    name: str
    mapping: object = None

    @classmethod
    def new(cls) -> Named:
        """Return a name that no other segment has."""
        return cls(f"{PREFIX}{os.urandom(8).hex()}")

    @classmethod
    def split(cls, message: bytes | memoryview, n: int) -> tuple[bytes | memoryview, list[Handle]]:
        """Return a message without the n names before it, and these, now of segments that stay."""
        handles: list[Handle] = []
        for start in range(0, n * NAME_BYTES, NAME_BYTES):
            name = bytes(message[start : start + NAME_BYTES]).decode()
            # One byte does. Should there be no such segment, this makes one, too small to be mapped in full.
            handles.append(cls(name, adopt(cls(name), 1).base))
        return message[n * NAME_BYTES :], handles


Handle: TypeAlias = "int | Named"
"""What one process passes to another for it to map a segment: a file descriptor, or a name."""


def create(n_bytes: int, remedy: str, copy_on_write: bool = False) -> tuple[Handle, Bytes]:
    """Create a segment of at least 1 byte and reserve its memory; return its handle, and that mapped.

    The caller closes the handle. The memory is mapped for as long as the array or a view of it lives.
    `remedy` is what the user can do where there is not enough memory, and becomes part of the error.
    `copy_on_write` says that others will map it privately.
    """
    _look(n_bytes, n_bytes, remedy)
    if sys.platform == "win32":
        named = Named.new()
        try:
            memory = adopt(named, n_bytes)
        except PescadorError as error:
            raise _too_little(n_bytes, free_memory(), remedy) from error
        return named._replace(mapping=memory.base), memory
    fd = _open(copy_on_write)
    try:
        _reserve(fd, n_bytes, remedy)
        return fd, adopt(fd, n_bytes)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise _cannot_create(error) from error
        raise


def adopt(handle: Handle, n_bytes: int, private: bool = False) -> Bytes:
    """Map a segment; the base of the array is the mapping.

    What is written into a `private` mapping stays in this process.
    """
    options: dict[str, Any] = {}
    if isinstance(handle, Named):
        options.update(tagname=handle.name, access=mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE)
    else:
        shared = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        options.update(flags=mmap.MAP_PRIVATE if private else shared)
    try:
        mapping = mmap.mmap(-1 if isinstance(handle, Named) else handle, n_bytes, **options)
        return np.ndarray(n_bytes, np.uint8, mapping)
    except (OSError, ValueError) as error:
        raise PescadorError(
            f"cannot map {n_bytes:,} bytes of shared memory: {error}. Is there memory left ('ulimit -v')?"
        ) from error


def private(n_bytes: int) -> Bytes:
    """Return memory of this process alone, aligned as a record is."""
    memory: Bytes = np.empty(n_bytes + ALIGNMENT, np.uint8)
    start = -int(memory.__array_interface__["data"][0]) % ALIGNMENT
    return memory[start : start + n_bytes]


def keep_freed_memory() -> None:
    """Have the C library keep the memory of items and messages for those that come next.

    glibc gives the end of a heap back to the system when that is more than twice as large as the largest
    block, of at most 32 MiB, that was ever mapped on its own and freed. Where all blocks are small (as in a
    worker whose batches lie in a ring), most come to lie on new pages, which may take as long as all the
    rest. Any program has that effect which frees an array of 32 MiB.
    """
    np.empty((1 << 25) - 8192, np.uint8)


def address(memory: memoryview | mmap.mmap) -> int:
    """Return where in this process some memory is."""
    return int(np.frombuffer(memory, np.uint8).__array_interface__["data"][0])


def close_all(handles: Sequence[Handle]) -> None:
    """Close handles. What is mapped stays mapped."""
    for handle in handles:
        if not isinstance(handle, Named):  # which is closed when nobody has it
            os.close(handle)


def copies_of(handles: Sequence[Handle]) -> list[Handle]:
    """Return copies of handles, which are to be closed."""
    copies: list[Handle] = []
    try:
        for handle in handles:
            copies.append(handle if isinstance(handle, Named) else os.dup(handle))
    except OSError as error:
        close_all(copies)
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise PescadorError(
            f"a file descriptor cannot be sent: {error.strerror}. Raise the limit ('ulimit -n')"
        ) from error
    return copies


def kind() -> str:
    """Return what a segment is on this system."""
    if sys.platform == "win32":
        return "named mappings"
    fd = _memfd()
    if fd is None:
        return "POSIX shared memory"
    os.close(fd)
    return "memfd"


def _open(copy_on_write: bool) -> int:
    """Return the descriptor of an empty segment without a name."""
    try:
        fd = _memfd()
        if fd is None:
            fd = _temporary_file() if copy_on_write else _posix()
        return fd
    except OSError as error:
        raise _cannot_create(error) from error


def _memfd() -> int | None:
    """Return the descriptor of a memfd; None where there is none."""
    if sys.platform != "linux":
        return None
    name, fd = PREFIX.rstrip("-"), -1
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:  # Python may have been built with a C library that did not know of it
        with contextlib.suppress(OSError, AttributeError):
            fd = ctypes.CDLL(None).memfd_create(name.encode(), 1)  # closed when another program is run
    if fd < 0:
        return None
    os.fchmod(fd, 0o600)
    return fd


def _posix() -> int:
    import _posixshmem

    name = f"/{PREFIX}{os.urandom(8).hex()}"  # macOS takes 31 characters
    fd: int = _posixshmem.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    _posixshmem.shm_unlink(name)
    return fd


def _temporary_file() -> int:
    import tempfile  # where there is nothing better

    with tempfile.TemporaryFile(prefix=PREFIX, buffering=0) as file:
        return os.dup(file.fileno())


def _cannot_create(error: OSError) -> PescadorError:
    return PescadorError(
        f"cannot create shared memory: {error.strerror} (errno {error.errno}). Are there file descriptors "
        "left ('ulimit -n')?"
    )


def _reserve(fd: int, n_bytes: int, remedy: str) -> None:
    """Give a segment its memory now, so that writing to it can't fail later.

    In steps, for others may take memory meanwhile: the other workers of the pool, who make their rings at the
    same time.
    """
    try:
        os.ftruncate(fd, n_bytes)
        for start in range(0, n_bytes if hasattr(os, "posix_fallocate") else 0, STEP_BYTES):
            if start:
                _look(min(STEP_BYTES, n_bytes - start), n_bytes, remedy)
            while True:
                try:
                    os.posix_fallocate(fd, start, min(STEP_BYTES, n_bytes - start))
                    break
                except InterruptedError:
                    continue
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise PescadorError(
                f"no shared memory of {n_bytes:,} bytes can be made: to the system it is a file, and this "
                f"process may not make one of that size. Raise the limit ('ulimit -f'). {remedy}"
            ) from error
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EINVAL):
            raise _too_little(n_bytes, free_memory(), remedy) from error
        raise


def _look(n_next: int, n_bytes: int, remedy: str) -> None:
    """Raise PescadorError if there is no memory for the next bytes of a segment.

    To take the last that there is would not fail: the system kills some process then.
    """
    room = free_memory()
    if n_next + min(n_next, SPARED_BYTES) > room.n_bytes:
        raise _too_little(n_bytes, room, remedy)


def _too_little(n_bytes: int, room: Room, remedy: str) -> PescadorError:
    return PescadorError(
        f"there is not enough memory: {n_bytes:,} bytes were asked for, but {room.n_bytes:,} bytes are free "
        f"{room.where}, up to {SPARED_BYTES:,} of which are left to others. {remedy}"
    )
