"""Generator functions that are run by the backend under test, and what they leave behind to be looked at.

Workers find them here by their names.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PlannedError", "arrays", "blocked", "closed", "drawn", "noise", "numbers", "raising", "recorded"]


class PlannedError(Exception):
    """An exception of a source, with an attribute of its own."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)
        self.code = code


def numbers(n: int) -> Generator[int, None, None]:
    """Give the numbers below `n`."""
    yield from range(n)


def arrays(n: int, size: int) -> Generator[dict[str, Any], None, None]:
    """Give `n` dicts of a number and an array that is filled with it."""
    for i in range(n):
        yield {"i": i, "x": np.full(size, i)}


def noise(n: int, rng: np.random.Generator) -> Generator[int, None, None]:
    """Give `n` random numbers of the opening's own generator."""
    for _ in range(n):
        yield int(rng.integers(1 << 30))


def raising(n: int) -> Generator[int, None, None]:
    """Give the numbers below `n`, and raise."""
    yield from range(n)
    raise PlannedError("on purpose", code=n)


def blocked(pid: int) -> Generator[int, None, None]:
    """Give one number, and never another in any process but that of `pid`."""
    yield 0
    if os.getpid() != pid:
        threading.Event().wait()  # until the process is killed


def recorded(n: int, folder: str) -> Generator[int, None, None]:
    """Give numbers, and write a byte to a file of this opening whenever one is drawn."""
    descriptor, path = tempfile.mkstemp(dir=folder)
    try:
        for i in range(n):
            os.write(descriptor, b".")
            yield i
    finally:
        os.close(descriptor)
        os.rename(path, path + ".closed")


def drawn(folder: str) -> list[int]:
    """Return how many items :func:`recorded` gave in each of its openings."""
    return [path.stat().st_size for path in Path(folder).iterdir()]


def closed(folder: str) -> int:
    """Return how many openings of :func:`recorded` were closed."""
    return sum(path.suffix == ".closed" for path in Path(folder).iterdir())
