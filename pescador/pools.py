"""The pool of a ParallelStreamer: opened when it is needed, and closed with the last that uses it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from . import backends
from .backends.base import Pool
from .exceptions import ParameterError, PescadorError

__all__ = ["PoolKeeper"]


class PoolKeeper:
    """The pool of a ParallelStreamer and its copies: opened when needed, closed with the last of them.

    Every thread that iterates calls :meth:`get`. Any thread, or a signal handler, may call :meth:`close` at
    any time. In a forked child there is no pool at first, because only the parent may use its own, or close
    it; nor is there one in what comes from a pickle.
    """

    def __init__(
        self,
        backend: str,
        n_workers: int,
        timeout: float | None,
        stall_timeout: float | None,
        max_restarts: int,
        options: dict[str, Any],
    ) -> None:
        self._recipe = (backend, n_workers, timeout, stall_timeout, max_restarts, options)
        # Held while the pool is opened or closed. Reentrant: a signal handler may close what it interrupts.
        self._lock = threading.RLock()
        self._n_closed = 0  # how often close() was called
        self._pool: Pool | None = None
        self._pid = os.getpid()
        self._finalizer: weakref.finalize[..., PoolKeeper] | None = None
        try:
            self._backend = backends.get(backend)(**options)
        except TypeError as error:
            raise ParameterError(f"options of backend {backend!r}: {error}") from error

    def __reduce__(self) -> tuple[type[PoolKeeper], tuple[Any, ...]]:
        return PoolKeeper, self._recipe

    def get(self) -> Pool:
        """Return the pool; open one if there is none that can be used."""
        self._leave_to_parent()
        n_closed = self._n_closed
        with self._lock:
            if self._pool is not None and self._pool.broken:
                self._end()
            if self._pool is None:
                _, n_workers, timeout, stall_timeout, max_restarts, _ = self._recipe
                self._pool = self._backend.open(
                    n_workers, timeout=timeout, stall_timeout=stall_timeout, max_restarts=max_restarts
                )
                self._finalizer = weakref.finalize(self, _close, self._pool, self._pid)
            if n_closed != self._n_closed:
                self._end()
                raise PescadorError("the ParallelStreamer was closed while its workers were being started")
            return self._pool

    def _leave_to_parent(self) -> None:
        """Forget the pool if it belongs to the process from which this one was forked."""
        if self._pid != os.getpid():
            self._lock = threading.RLock()  # the old one may be held by a thread that only the parent has
            self._pid = os.getpid()
            if self._finalizer is not None:
                self._finalizer.detach()
            self._pool = self._finalizer = None

    def stats(self) -> list[backends.WorkerStats]:
        """Return what the workers did."""
        pool = self._pool
        return [] if pool is None or self._pid != os.getpid() else pool.stats()

    def close(self) -> None:
        """Close the pool, if there is one."""
        self._leave_to_parent()
        self._n_closed += (
            1  # first, so that a thread that is opening the pool now closes it as soon as it is open
        )
        timeout = self._recipe[2]
        if self._lock.acquire(timeout=-1 if timeout is None else timeout):
            try:
                self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        """Close the pool, if there is one. The lock is held."""
        pool, finalizer = self._pool, self._finalizer
        if pool is not None:
            _close(pool, self._pid)
            # Only now: if a Ctrl-C interrupts close(), the pool is still known, and can be closed again.
            if finalizer is not None:
                finalizer.detach()
            self._pool = self._finalizer = None


def _close(pool: Pool, pid: int) -> None:
    """Close a pool, except in a forked child, which inherits the finalizers of its parent."""
    if pid == os.getpid():
        pool.close()
