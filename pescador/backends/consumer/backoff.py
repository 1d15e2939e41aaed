"""How a consumer waits for a worker before it goes to sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Backoff"]

T = TypeVar("T")

# time.sleep() takes at least twice as long as it was asked to, and up to 30 µs of processor time.
STEP_SECONDS = 50e-6

# A wait that is longer is worth going to sleep for.
BACKOFF_SECONDS = 500e-6


class Backoff:
    """Looks again a few times, and then goes to sleep.

    Whoever sleeps until a message comes has to be woken by its sender, which costs the sender up to 40 µs in
    a virtual machine. To look again now and then costs the sender nothing, and oneself the more the longer
    the wait is. So it is done where waits are short, as the last one was. The thread sleeps between two
    looks, too.

    A worker does without: it waits when its streams are as far ahead as they may be, so it is seldom waited
    for, and its looks would take time from the consumer, or from another worker.
    """

    def __init__(self) -> None:
        self._last = 0.0  # seconds that the last wait took

    def wait(self, look: Callable[[], T], sleep: Callable[[], T]) -> T:
        """Return what `look`, which has just found nothing, finds soon, or else what `sleep` returns."""
        started = time.perf_counter()
        deadline = started + BACKOFF_SECONDS if self._last < BACKOFF_SECONDS else started
        found = None
        while not found and time.perf_counter() < deadline:
            time.sleep(STEP_SECONDS)
            found = look()
        found = found or sleep()
        self._last = time.perf_counter() - started
        return found
