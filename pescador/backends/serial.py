"""In this thread: nothing in the background, for debugging and as a yardstick."""

from __future__ import annotations

from typing import TypeVar

from ..core import Context, Streamer
from ..seeding import Seed
from .base import Backend, Pool, Stream, WorkerStats

__all__ = ["SerialBackend"]

T = TypeVar("T")


class SerialBackend(Backend):
    """Runs a stream when its items are asked for, in the thread that asks."""

    def open(self, n_workers: int, *, timeout: float, seed: Seed) -> Pool:
        """Open a pool without workers."""
        return _SerialPool(n_workers)


class _SerialPool(Pool):
    def __init__(self, n_workers: int) -> None:
        self._workers = [WorkerStats() for _ in range(n_workers)]
        self._n_opened = 0

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, prefetch: int | None
    ) -> Stream[T]:
        stats = self._workers[self._n_opened % len(self._workers)]
        self._n_opened += 1

        def items():  # type: ignore[no-untyped-def]  # its type is that of the return below
            stats.streams += 1
            stream = streamer.open(Context(seed), max_iter)
            try:
                for item in stream:
                    stats.items += 1
                    yield item
            finally:
                stats.streams -= 1
                stream.close()

        return items()  # type: ignore[no-any-return,no-untyped-call]

    def close(self) -> None:
        pass

    def stats(self) -> list[WorkerStats]:
        return self._workers
