"""What an item is made of: how large it is, what lies behind its arrays, and how it would be sent."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...backends.protocol.codec import Encoder
from ...backends.protocol.pickling import PICKLED, dump
from ...backends.protocol.tensors import is_tensor
from .parts import parts, walk

__all__ = ["View", "n_bytes", "owner", "pickled", "view_of"]

MAX_PARTS: Final = 1000  # of an item that are looked at
MIN_DRAGGED: Final = 1 << 20  # bytes that are kept for nothing
MIN_PICKLED: Final = 1 << 16  # bytes of a pickle, besides those of arrays


class View(NamedTuple):
    """An array of an item that is a part of a much larger one."""

    path: str
    n_bytes: int
    n_bytes_behind: int


def n_bytes(item: Any) -> int:
    """Return about how many bytes an item has."""
    return sum(_n_bytes(part) for _, part in islice(walk(item, ""), MAX_PARTS))


def _n_bytes(part: Any) -> int:
    if isinstance(part, str | bytes | bytearray):
        return len(part)
    return int(part.nbytes) if isinstance(part, np.ndarray | np.generic) or is_tensor(part) else 8


def owner(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array whose memory an array shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def view_of(item: Any, known: Collection[int]) -> View | None:
    """Return the first array of an item that keeps a much larger one in memory.

    `known` are the ids of those that the recipe keeps anyway.
    """
    for path, part in islice(walk(item, "item"), MAX_PARTS):
        if isinstance(part, np.ndarray):
            whole = owner(part)
            is_mapped = isinstance(whole, np.memmap)
            if whole.nbytes - 2 * part.nbytes >= MIN_DRAGGED and id(whole) not in known and not is_mapped:
                return View(path, part.nbytes, whole.nbytes)
    return None


def pickled(item: Any) -> tuple[str, int] | None:
    """Return which part of an item makes a large pickle, and how many bytes that has; None if none does."""
    try:
        layout, pieces = Encoder().encode(item)
        if layout.number != PICKLED or len(pieces[1]) < MIN_PICKLED:
            return None
        sizes = [(len(dump(part, [])), path) for path, part in parts("item", item)]
    except Exception:  # it cannot be sent at all, which the opening on a worker tells
        return None
    return max(sizes, default=(0, "item"))[1], len(pieces[1])
