"""A pool of workers: which of them runs a stream."""

from __future__ import annotations

import contextlib
import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ...core import Streamer
from ...exceptions import PescadorError
from ...opening import State
from ...seeding import Seed
from ..base import Pool, Stream, WorkerStats
from .inbox import Inbox
from .recipes import Recipe, Recipes
from .remote_stream import RemoteStream
from .worker_handle import WorkerHandle

__all__ = ["RecipePool", "WorkerPool"]

T = TypeVar("T")
Handle = TypeVar("Handle", bound=WorkerHandle)
InboxT = TypeVar("InboxT", bound=Inbox)


class WorkerPool(Pool, Generic[Handle]):
    """A pool whose streams run on workers that take commands."""

    def __init__(self, workers: Sequence[Handle]) -> None:
        self.workers = workers
        self._numbers = itertools.count(1)
        self._closed = False

    def recipe(self, streamer: Streamer[Any]) -> Any:
        """Return what a worker makes the stream from."""
        return streamer

    def open(
        self,
        streamer: Streamer[T],
        seed: Seed,
        max_iter: int | None,
        prefetch: int | None,
        state: State | None = None,
    ) -> Stream[T]:
        if self._closed:
            raise PescadorError("the pool of this ParallelStreamer was closed")
        recipe = self.recipe(streamer)
        worker = min(self.workers, key=lambda worker: len(worker.streams))
        number = next(self._numbers)
        stream: RemoteStream[T] = RemoteStream(worker, number, prefetch, streamer, max_iter, state)
        worker.open(stream, recipe, seed, max_iter)
        return stream

    def close(self) -> None:
        # It may be called again after a Ctrl-C has interrupted it, and ends what is left.
        self._closed = True
        try:
            for worker in self.workers:
                worker.end_streams()
        finally:
            self.end_workers()

    @abstractmethod
    def end_workers(self) -> None:
        """End all workers that are left, and wait until they are gone."""

    @property
    def broken(self) -> bool:
        return self._closed or any(worker.is_dead() for worker in self.workers)

    def stats(self) -> list[WorkerStats]:
        return [worker.stats() for worker in self.workers]


class RecipePool(WorkerPool[InboxT]):
    """A pool to whose workers recipes are sent."""

    def __init__(self, workers: Sequence[InboxT], recipes: Recipes) -> None:
        super().__init__(workers)
        self._recipes = recipes

    def begin(self, seed: Seed) -> None:  # the seed is for those who inherit this
        self._recipes.begin()
        self._drop()

    def recipe(self, streamer: Streamer[Any]) -> Recipe:
        recipe = self._recipes.make(streamer)
        if self._recipes.given_up:
            self._drop()
        return recipe

    def _drop(self) -> None:
        """Have the workers drop what was given up."""
        numbers: list[int] = []
        with contextlib.suppress(IndexError):  # when none is left: another thread may take some, too
            while True:
                numbers.append(self._recipes.given_up.popleft())
        if numbers:
            for worker in self.workers:
                worker.drop(numbers)
