"""In this thread: nothing in the background, for debugging and as a yardstick."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, Generic, TypeVar

from ..core import Streamer
from ..exceptions import PescadorError
from ..iteration import saved
from ..opening import Context, State
from ..seeding import Seed
from .base import Backend, Pool, Stream, StreamStats, WorkerStats

__all__ = ["SerialBackend"]

T = TypeVar("T")

_CLOSED = "the ParallelStreamer was closed while this stream was open"


class SerialBackend(Backend):
    """Runs a stream when its items are asked for, in the thread that asks."""

    def open(
        self, n_workers: int, *, timeout: float | None, stall_timeout: float | None, max_restarts: int = 0
    ) -> Pool:
        """Open a pool without workers."""
        return _SerialPool(n_workers)


class _SerialPool(Pool):
    def __init__(self, n_workers: int) -> None:
        self._workers = [WorkerStats() for _ in range(n_workers)]
        self._n_opened = 0
        self._streams: weakref.WeakSet[_SerialStream[Any]] = weakref.WeakSet()

    def open(
        self,
        streamer: Streamer[T],
        seed: Seed,
        max_iter: int | None,
        prefetch: int | None,
        state: State | None = None,
    ) -> Stream[T]:
        stats = self._workers[self._n_opened % len(self._workers)]
        self._n_opened += 1
        opened = streamer.open(Context(seed), max_iter, state)
        stream = _SerialStream(opened, _items(repr(streamer), opened, stats))
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        for stream in list(self._streams):
            stream.end()

    def stats(self) -> list[WorkerStats]:
        return self._workers


class _SerialStream(Generic[T]):
    def __init__(self, stream: Generator[T, None, None], items: Generator[T, None, None]) -> None:
        self._stream: Any = stream
        self._items: Any = items  # generators, whose type does not know of their frames
        self._was_ended = False
        self._left: State | PescadorError | None = None  # where it stood then

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._was_ended:
            self._items.close()
            raise PescadorError(_CLOSED)
        item: T = next(self._items)
        return item

    def end(self) -> None:
        """Close the stream because its pool is closed; if it was open, it raises."""
        self._was_ended = self._items.gi_frame is not None
        self._left = PescadorError(_CLOSED)
        if not self._items.gi_running:  # in another thread; there it is closed when it is asked for more
            with suppress(PescadorError):
                self._left = saved(self._stream)
            self.close()

    def allow(self, prefetch: int | None) -> None:
        """Nothing runs ahead here."""

    def save(self) -> State | None:
        if isinstance(self._left, PescadorError):
            raise self._left
        return self._left if self._was_ended else saved(self._stream)

    @property
    def gi_frame(self) -> FrameType | None:
        """That of the stream, by which it is known that it runs here."""
        return self._stream.gi_frame  # type: ignore[no-any-return]

    def close(self) -> None:
        self._items.close()


def _items(name: str, stream: Generator[T, None, None], stats: WorkerStats) -> Generator[T, None, None]:
    mine = StreamStats(name)
    stats.open_streams.append(mine)
    stats.streams += 1
    try:
        for item in stream:
            stats.items += 1
            mine.items += 1
            yield item
    finally:
        stats.streams -= 1
        stats.open_streams = [other for other in stats.open_streams if other is not mine]
        stream.close()
