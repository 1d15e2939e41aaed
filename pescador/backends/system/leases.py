"""Leases: which records of shared memory are still used here, and what becomes of them at a fork.

A forked process inherits the arrays of its parent. Those over shared memory would stay the very memory that
the parent reads and a worker writes again. So the child gets private memory in their place, before any other
code runs there::

    parent                                    child
    from now on no lease counts as ended
    fork                                      copies what is leased
    waits                                     maps private memory over the segment, and copies it back
    goes on; ended leases count again     ◀── done

Invariants: a record is not given back to its worker before all processes that were forked while it was
leased have their own copy; and neither process runs on before that, so neither sees what the other writes
later. What the child has then is shared with nobody, so when it forks in turn, nothing is to be done for it.

Where nothing is leased, a fork costs nothing. Where the memory cannot be replaced (:mod:`ctypes` finds no C
library, or there is no memory), or a library forks behind Python's back, it stays shared.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .shared_memory import Bytes, address

__all__ = ["Leases"]

# Seconds that a parent waits for its child; copying takes a hundredth of a second for 100 MB.
CHILD_SECONDS = 10.0


class Leases:
    """Makes arrays over records of shared memory, and tells when the last user of one is gone.

    Such an array is watched by a weak reference, its *lease*. All views of it keep the array alive, whatever
    their type, shape or class: NumPy has a view refer to the lowest array of a chain of views. That is this
    one as long as the memory below it is no array itself. Any thread may call anything.

    Attributes
    ----------
    ended : deque
        Leases that have ended. They are appended by any thread, at any moment; that takes no lock.
    """

    def __init__(self) -> None:
        self.ended: deque[_Lease] = deque()
        self._end = self.ended.append
        self._open: dict[int, _Lease] = {}  # kept, for a weak reference that is dropped tells nothing
        self._is_closed = False
        for leases in list(_all):
            leases._forget_if_unused()
        _all.add(self)

    def lend(self, memory: Any, offset: int, n_bytes: int, record: Any) -> Bytes:
        """Return an array over a part of `memory`, a buffer that is no array.

        :meth:`take_ended` gives `record` when it and all its views are gone, if it is not None.
        """
        array: Bytes = np.ndarray((n_bytes,), _BYTE, memory, offset)
        lease = _Lease(array, self._end)
        lease.record = record
        self._open[id(lease)] = lease
        return array

    def take_ended(self) -> list[Any]:
        """Return the records whose leases have ended since the last call."""
        records: list[Any] = []
        while self.ended:
            try:
                lease = self.ended.popleft()
            except IndexError:  # another thread was faster
                break
            # Looked at only now: if no fork is under way, this lease had ended before the next one.
            if _forks:
                self.ended.appendleft(lease)
                break
            del self._open[id(lease)]
            if lease.record is not None:
                records.append(lease.record)
        return records

    def close(self) -> None:
        """Tell nobody any more what ends. What is still leased stays known, for a fork has to replace it."""
        self._is_closed = True
        self._forget_if_unused()

    def _forget_if_unused(self) -> None:
        if self._is_closed:
            self.take_ended()
            if not self._open:
                _all.discard(self)

    def arrays(self) -> list[Bytes]:
        """Return all arrays that are leased."""
        return [array for lease in list(self._open.values()) if (array := lease()) is not None]


class _Lease(weakref.ref[Bytes]):
    __slots__ = ("record",)

    record: Any


_BYTE = np.dtype(np.uint8)

# The Leases of this process that are not closed, or of which something is still leased.
_all: set[Leases] = set()

# Held while a fork is under way, so that a child has no pipe but its own.
_lock = threading.RLock()

# The forks that are under way: more than one if a signal handler forks meanwhile. For each, the pipe through
# which the child tells that it is done; None if there is no pipe.
_forks: list[tuple[int, int] | None] = []


def _before() -> None:
    _lock.acquire()
    _forks.append(None)  # first, for what is leased from now on must not be given back either
    if any(leases.arrays() for leases in list(_all)):
        with contextlib.suppress(OSError):  # there is no descriptor left; then the parent can't wait
            _forks[-1] = os.pipe()


def _after_in_parent() -> None:
    pipe = _forks[-1]
    try:
        if pipe is not None:
            _wait_for_child(*pipe)
    finally:
        _forks.pop()
        _lock.release()


def _wait_for_child(reading: int, writing: int) -> None:
    """Wait until the child has copied what is leased, or has ended (there is none if the fork failed)."""
    try:
        os.close(writing)
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        poll.poll(1000 * CHILD_SECONDS)
    finally:
        os.close(reading)


def _after_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    forks = [pipe for pipe in _forks if pipe is not None]
    tells = bool(_forks) and _forks[-1] is not None
    try:
        _make_private()
        if tells:
            with contextlib.suppress(OSError):
                os.write(forks[-1][1], b".")
    finally:
        for descriptor in (descriptor for pipe in forks for descriptor in pipe):
            os.close(descriptor)
        _forks.clear()
        _all.clear()


def _make_private() -> None:
    """Move all that is leased to memory of this process alone, at the same addresses."""
    leased: dict[int, list[Bytes]] = {}
    for leases in _all:
        for array in leases.arrays():
            leased.setdefault(id(array.base), []).append(array)
    for arrays in leased.values():
        copies = [array.copy() for array in arrays]
        if _map_private(arrays[0].base):
            for array, copy in zip(arrays, copies, strict=True):
                np.copyto(array, copy)


def _map_private(mapping: object) -> bool:
    """Put fresh memory in place of that of a mapping; return whether that could be done."""
    if _mmap is None or not isinstance(mapping, mmap.mmap):
        return False
    place = address(mapping)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    return _mmap(place, len(mapping), protection, _FIXED | _PRIVATE, -1, 0) == place


# mmap.mmap knows no MAP_FIXED; it has this value on Linux, macOS and the BSDs.
_FIXED = 0x10
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)


def _find_mmap() -> Callable[..., int | None] | None:
    """Return the function of the C library, None if there is none."""
    try:
        function = ctypes.CDLL(None).mmap
    except (OSError, AttributeError, TypeError):  # the last one on Windows
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
    return function


_mmap = _find_mmap()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
