"""Arrays that are not sent to a worker, because it can map the memory in which they are.

That is a segment of shared memory to which the consumer has copied them, or a file that the consumer has
mapped, if what it holds is what is in the array.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["InFile", "InSegment", "locate", "map_again"]

Array = npt.NDArray[Any]

# Elements at each end of an array that are compared with the file, which might have been replaced meanwhile.
N_COMPARED = 512


class InSegment(NamedTuple):
    """Where an array is in a segment, and how it looks."""

    segment: int
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    is_writeable: bool
    is_memmap: bool


class InFile(NamedTuple):
    """Where an array is in a file, and how it looks."""

    name: str
    start: int  # of the bytes to be mapped
    n_bytes: int  # of these
    offset: int  # in these
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    is_memmap: bool


def locate(array: Array) -> InFile | None:
    """Return where in a file another process finds what is in an array; None if there is no such place."""
    mapping: Any = array
    while isinstance(mapping, np.ndarray) and not isinstance(mapping.base, mmap.mmap):
        mapping = mapping.base
    if not isinstance(mapping, np.memmap) or mapping.filename is None or mapping.mode == "c":
        return None  # what was written to a private mapping is not in the file
    low, high = _byte_bounds(array)
    start = mapping.offset + low - mapping.__array_interface__["data"][0]
    name = os.path.abspath(os.fspath(mapping.filename))
    offset = array.__array_interface__["data"][0] - low
    is_memmap = type(array) is np.memmap
    file = InFile(name, start, high - low, offset, array.shape, array.strides, array.dtype, is_memmap)
    return file if _is_there(file, array) else None


def map_again(file: InFile) -> Array:
    """Return the array, read-only."""
    memory: Any = np.memmap(file.name, np.uint8, "r", file.start, (file.n_bytes,))
    array: Array = np.ndarray(file.shape, file.dtype, memory, file.offset, file.strides)
    return array.view(np.memmap) if file.is_memmap else array


def _is_there(file: InFile, array: Array) -> bool:
    try:
        again = map_again(file)
    except (OSError, ValueError):
        return False
    ends = slice(N_COMPARED), slice(-N_COMPARED, None)
    return all(again.flat[end].tobytes() == array.flat[end].tobytes() for end in ends)


def _byte_bounds(array: Array) -> tuple[int, int]:
    """Return the addresses of the first byte of an array and of the one behind its last."""
    low = high = int(array.__array_interface__["data"][0])
    for length, step in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (length - 1) * step), high + max(0, (length - 1) * step)
    return low, high + array.itemsize
