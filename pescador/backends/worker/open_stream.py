"""The worker's end of one open stream, and when it is told where that stands."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any

from ...iteration import saved
from ...opening import State

__all__ = ["WorkerStream"]

# How often it is told where a stream stands, and what share of the time that may take.
SNAPSHOT_SECONDS = 1.0
SNAPSHOT_SHARE = 0.01


class WorkerStream:
    """The worker's end of one open stream."""

    __slots__ = (
        "credits",
        "is_new",
        "is_open",
        "is_ready",
        "iterator",
        "left",
        "n_made",
        "number",
        "save_at",
    )

    def __init__(
        self,
        number: int,
        iterator: Generator[Any, None, None],
        left: int | None,
        n_credits: int,
        n_made: int = 0,
    ) -> None:
        self.number = number
        self.iterator = iterator
        self.left = left  # items until max_iter is reached; None if there is no bound
        self.credits = n_credits  # items it may produce until it must wait
        self.is_open = True
        self.is_new = True  # it has not run yet
        self.is_ready = False  # it is in the queue of those that may run
        self.n_made = n_made  # only counted if that is to be told
        self.save_at = time.perf_counter() + SNAPSHOT_SECONDS  # when the next snapshot is due

    def save(self) -> State | None:
        """Return where the stream stands; None if there is no more to know than how many items it gave."""
        try:
            state = saved(self.iterator)
        except Exception:  # the consumer knows why, if somebody asks there
            state = None
        if state is None or "source" not in state:
            self.save_at = math.inf
            return None
        return state

    def save_later(self, started: float) -> None:
        """Say when the next snapshot is due, after one that was begun at `started`."""
        ended = time.perf_counter()
        self.save_at = ended + max(SNAPSHOT_SECONDS, (ended - started) / SNAPSHOT_SHARE)
