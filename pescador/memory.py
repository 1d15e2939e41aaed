"""Arrays that a worker can deliver without copying them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["allocate_with", "empty"]

Allocate = Callable[[int], "npt.NDArray[np.uint8] | None"]

_allocate: Allocate | None = None  # in a shm worker, what gives memory of its ring


def empty(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = float, order: Literal["C", "F"] = "C"
) -> npt.NDArray[Any]:
    """Return a new array of undefined content, like :func:`numpy.empty`.

    Inside a worker of the ``shm`` backend the array lies in shared memory if there is room, so a generator
    that yields it as a value of a dict, and keeps no reference to it or to the dict, has nothing copied.
    Everywhere else this is :func:`numpy.empty`.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array.
    dtype : dtype
        Type of its elements.
    order : {'C', 'F'}
        Memory layout.

    Returns
    -------
    array : numpy.ndarray

    Examples
    --------
    >>> import pescador
    >>> pescador.empty((2, 3), dtype='float32').shape
    (2, 3)
    """
    dtype = np.dtype(dtype)
    if _allocate is not None and not dtype.hasobject:
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        n_bytes = dtype.itemsize
        for length in shape:
            n_bytes *= int(length)
        memory = _allocate(n_bytes)
        if memory is not None:
            return np.ndarray(shape, dtype, memory, order=order)
    return np.empty(shape, dtype, order)  # type: ignore[call-overload,no-any-return]


def allocate_with(allocate: Allocate | None) -> None:
    """Have :func:`empty` take memory from `allocate`, which returns None when it has none to give.

    A worker calls this before its first stream. None stands for the system's memory.
    """
    global _allocate
    _allocate = allocate


# A process that a generator forks inside a worker shares the worker's ring, but does not learn what becomes
# of it: both would write into the same places. So it takes its memory from the system.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: allocate_with(None))
