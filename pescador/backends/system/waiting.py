"""Long waits, which a Ctrl-C must be able to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["in_slices"]

CTRL_C_SECONDS = 1.0
"""How long a Ctrl-C may go unheard."""


def in_slices(wait: Callable[[float], bool], timeout: float | None) -> bool:
    """Wait until `wait`, which takes seconds, has been successful; return whether it was, in time.

    One wait is made of many, of CTRL_C_SECONDS at most, because a system call goes on waiting if a signal
    came just before it. And a condition that is notified just as its time is over says that it was not
    notified, so `wait` has to look for itself at what it waits for.
    """
    deadline = math.inf if timeout is None else time.perf_counter() + timeout
    while (left := deadline - time.perf_counter()) > 0:
        if wait(min(left, CTRL_C_SECONDS)):
            return True
    return False
