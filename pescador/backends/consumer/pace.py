"""Whether a consumer starves: whether it waits for its workers nearly all of the time.

To be woken costs a consumer, and the worker that wakes it, about as much as a small item is worth. One that
starves gains nothing by being woken for each item: it has used it long before there is another. One that
works in between is to go on at once, for while it works, its workers do, too.
"""

from __future__ import annotations

import time

__all__ = ["Pace"]

STARVING = 4.0  # it waits so many times as long as it works
SMOOTHING = 1 / 8
WORKS_AT_FIRST = 10e-3  # seconds: as if it had worked for so long, until some waits have shown what it does


class Pace:
    """How long the consumer of a pool waits, and works in between, of late.

    It is an estimate: what threads that wait at once take from each other does no harm.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Take note that an iteration begins, of which the first items are not to be late."""
        self._ended = time.perf_counter()  # the last wait
        self._waits, self._works = 0.0, WORKS_AT_FIRST  # seconds, smoothed

    def add_wait(self, started: float, ended: float) -> None:
        """Take note of a wait, by the clock of ``time.perf_counter()``."""
        self._works += SMOOTHING * (max(started - self._ended, 0.0) - self._works)
        self._waits += SMOOTHING * (ended - started - self._waits)
        self._ended = ended

    @property
    def is_starving(self) -> bool:
        """Whether it starves."""
        return self._waits > STARVING * self._works
