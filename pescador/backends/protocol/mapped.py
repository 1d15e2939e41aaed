"""Arrays in files that are mapped into memory: where they are, and mapping them again in another process."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

__all__ = ["File", "locate", "map_again"]

# Elements at each end of an array that are compared with the file, which might have been replaced meanwhile.
N_COMPARED = 512

File = tuple[str, int, int, int, tuple[int, ...], tuple[int, ...], Any, bool]
"""Name; which bytes to map (start, number); offset in them, shape, strides, dtype; whether it is a memmap."""


def locate(array: Any) -> File | None:
    """Return where in a file another process finds what is in an array; None if there is no such place."""
    mapping = array
    while isinstance(mapping, np.ndarray) and not isinstance(mapping.base, mmap.mmap):
        mapping = mapping.base
    if not isinstance(mapping, np.memmap) or mapping.filename is None or mapping.mode == "c":
        return None  # what was written to a private mapping is not in the file
    low, high = _byte_bounds(array)
    start = mapping.offset + low - mapping.__array_interface__["data"][0]
    name = os.path.abspath(os.fspath(mapping.filename))
    offset = array.__array_interface__["data"][0] - low
    is_map = type(array) is np.memmap
    file = name, start, high - low, offset, array.shape, array.strides, array.dtype, is_map
    return file if _is_there(file, array) else None


def map_again(file: File) -> Any:
    """Return the array, read-only."""
    name, start, n_bytes, offset, shape, strides, dtype, is_map = file
    memory = np.memmap(name, np.uint8, "r", start, (n_bytes,))
    array = np.ndarray(shape, dtype, memory, offset, strides)  # type: ignore[arg-type]
    return array.view(np.memmap) if is_map else array


def _is_there(file: File, array: Any) -> bool:
    try:
        again = map_again(file)
    except (OSError, ValueError):
        return False
    ends = slice(N_COMPARED), slice(-N_COMPARED, None)
    return all(again.flat[end].tobytes() == array.flat[end].tobytes() for end in ends)


def _byte_bounds(array: Any) -> tuple[int, int]:
    """Return the addresses of the first byte of an array and of the one behind its last."""
    low = high = int(array.__array_interface__["data"][0])
    for length, step in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (length - 1) * step), high + max(0, (length - 1) * step)
    return low, high + array.itemsize
