"""The contract of a backend.

A *backend* opens pools of workers. A *pool* opens streams on its workers: a stream is a recipe, the
seed of its activation and at most `max_iter` items, and its items come out of an iterator. What every
backend guarantees, and :mod:`pescador.testing` checks:

- Items of one stream arrive in order and unchanged, and nothing runs before the first is asked for.
- A stream runs ahead of its consumer by at most `prefetch` items.
- The end of a stream, an exception in it and the death of its worker are three different things.
- After ``close()``, of a stream or of the pool, nothing of it remains; it may be called at any time,
  more than once, and by the garbage collector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ..core import Streamer
from ..opening import State
from ..seeding import Seed

__all__ = ["Backend", "Pool", "Stream", "StreamStats", "WorkerStats"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol[T_co]):
    """An open stream: an iterator that can be closed."""

    def __iter__(self) -> Iterator[T_co]:
        """Return itself."""
        ...

    def __next__(self) -> T_co:
        """Return the next item; raise what the stream raised, or WorkerError if its worker died."""
        ...

    def allow(self, prefetch: int | None) -> None:
        """Let the stream run ahead by so many items, if those are more than it was opened with."""
        ...

    def save(self) -> State | None:
        """Return where the stream stands after the last item that was taken; None if it has ended."""
        ...

    def close(self) -> None:
        """Close the stream where it runs, and drop what it produced ahead."""
        ...


@dataclass
class StreamStats:
    """What was delivered of one stream that is open now."""

    name: str
    """What runs."""
    items: int = 0
    """Items delivered to the consumer."""
    consumer_wait: float = 0.0
    """Seconds that the consumer waited for this stream."""
    queue_depth: int = 0
    """Items that are here, but were not asked for yet."""


@dataclass
class WorkerStats:
    """What one worker did since its pool was opened."""

    pid: int | None = None
    """Process of the worker; None if it is a thread, or not started."""
    host: str | None = None
    """Machine of the worker; None where all of them run on this one."""
    streams: int = 0
    """Number of streams that are open now."""
    items: int = 0
    """Items delivered to the consumer."""
    bytes: int = 0
    """Bytes of array data and pickles delivered; 0 where nothing is encoded."""
    copied: int = 0
    """Bytes that the worker copied to send them; less than `bytes` where arrays were made in place."""
    restarts: int = 0
    """How many workers died in this one's place, and were replaced."""
    consumer_wait: float = 0.0
    """Seconds that the consumer waited for this worker."""
    worker_wait: float = 0.0
    """Seconds that the worker waited because its streams were as far ahead as they may."""
    queue_depth: int = 0
    """Items that are here, but were not asked for yet."""
    open_streams: list[StreamStats] = field(default_factory=list)
    """One entry for each stream that is open now."""


class Pool(ABC):
    """Workers, and the streams that run on them."""

    @abstractmethod
    def open(
        self,
        streamer: Streamer[T],
        seed: Seed,
        max_iter: int | None,
        prefetch: int | None,
        state: State | None = None,
    ) -> Stream[T]:
        """Open a stream on the least loaded worker.

        Parameters
        ----------
        streamer : Streamer
            The recipe.
        seed : Seed
            The seed of this activation.
        max_iter : int or None
            The stream ends after so many items, counted from its beginning.
        prefetch : int or None
            How many items it may run ahead, at least 1; None leaves it to the backend.
        state : dict, optional
            Where the stream stood under this seed, and goes on.
        """

    def begin(self, seed: Seed) -> None:
        """Take note that the consumer begins an iteration, with this seed.

        What recipes and their surroundings are now holds for the streams that it opens. Workers in
        processes of their own seed their global generators from children of the seed.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, and wait until they are gone."""

    @abstractmethod
    def stats(self) -> list[WorkerStats]:
        """Return one entry a worker."""

    @property
    def broken(self) -> bool:
        """Whether a worker died or stalled, so that a new pool must be opened for the next stream."""
        return False


class Backend(ABC):
    """Opens pools. Its constructor takes the options of the backend, and checks them."""

    @abstractmethod
    def open(
        self, n_workers: int, *, timeout: float | None, stall_timeout: float | None, max_restarts: int = 0
    ) -> Pool:
        """Open a pool.

        Parameters
        ----------
        n_workers : int
            Number of workers.
        timeout : float or None
            Seconds that ``close()`` waits for a worker before it is terminated; None: without a bound.
        stall_timeout : float or None
            A worker that delivers nothing to a waiting consumer for so many seconds is given up: all its
            streams raise WorkerError. None: never.
        max_restarts : int
            How many workers that died, or stalled, are replaced, so that no stream notices; never threads.
        """
