"""Weighted draws that cost next to nothing a sample.

Randomness comes as one sequence of uniform numbers. :class:`Draws` takes them in blocks and lets a
*sampler* turn each into a slot, so the sequence of slots does not depend on the size of the blocks.
There are two samplers, and both are exact:

:class:`Categorical`
    Fixed weights from which slots can only be dropped. A whole block is turned at once. A dropped
    slot is rejected by whoever draws it, and the table is rebuilt when half of its mass is gone, so a
    drop costs O(log n) amortised and a draw at most two tries on average.
:class:`SumTree`
    Weights that change all the time. A draw and a change cost O(log n). An inner node is the sum of
    its children, computed anew at each change, so rounding errors do not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import length_hint
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .exceptions import ParameterError

__all__ = ["Categorical", "Draws", "Floats", "SumTree", "blocks", "check_weights", "scale"]

Scalar = TypeVar("Scalar", bound=np.generic)
Floats = npt.NDArray[np.float64]

# The first block is small, so that a first sample is cheap; each further one is twice as long, up to
# where a block's fixed cost (about 5 µs) is lost among its samples.
FIRST_BLOCK = 16
LAST_BLOCK = 4096

# Tables from this size on are searched in order.
CACHE_BYTES = 1 << 19


def blocks(draw: Callable[[int], npt.NDArray[Scalar]]) -> Iterator[npt.NDArray[Scalar]]:
    """Yield what `draw` gives for a number of random numbers, again and again, and for more each time.

    `draw` is a method of a generator that nobody else uses, so the sizes do not change the sequence.
    """
    size = FIRST_BLOCK
    while True:
        yield draw(size)
        size = min(2 * size, LAST_BLOCK)


def check_weights(weights: npt.ArrayLike, n: int) -> Floats:
    """Return a read-only copy of `weights`, shape (n,), or raise ParameterError."""
    try:
        values = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"weights must be numbers: {error}") from None
    if values.shape != (n,):
        raise ParameterError(
            f"there must be one weight a streamer: got weights of shape {values.shape} for {n} streamers"
        )
    bad = np.flatnonzero(~(values >= 0) | np.isinf(values))
    if bad.size:
        raise ParameterError(
            f"weights must be finite and not negative, but weights[{bad[0]}] is {values[bad[0]]}"
            + (f", and so are {bad.size - 1} more" if bad.size > 1 else "")
        )
    if not values.any():
        raise ParameterError("all weights are 0, so no streamer can ever be drawn")
    values.flags.writeable = False
    return values


def scale(weights: Floats) -> float:
    """Return the power of two by which weights are multiplied before they are added up.

    It is 1 unless their sum might overflow, or get lost among subnormal numbers. What underflows then has
    a share below 1e-280, and counts again once the table is rebuilt without the large ones.
    """
    exponent = int(np.frexp(weights.max())[1])
    return 1.0 if abs(exponent) < 900 else 2.0 ** max(-1000, min(-exponent, 1000))


class Sampler(Protocol):
    """Turns uniform numbers from [0, 1) into slots."""

    @property
    def find(self) -> Callable[[float], int] | None:
        """Turns one number at the moment it is needed; None if :meth:`locate` gives slots at once."""

    def locate(self, uniforms: Floats) -> list[Any]:
        """Return the slots of a block of numbers, or a list of the numbers for :attr:`find`."""


class Draws:
    """An endless sequence of slots.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of a PCG64, which makes one step for each number. Used by nobody else.
    sampler : Sampler
        May be replaced at any time; call :meth:`remap` after that.
    position : int
        How many numbers were taken before, and are passed over.

    Attributes
    ----------
    slots : iterator of int
        To be iterated over in C, without a call into this class for each sample.
    """

    def __init__(self, rng: np.random.Generator, sampler: Sampler, position: int = 0) -> None:
        self.sampler = sampler
        if position:
            rng.bit_generator.advance(position)  # type: ignore[attr-defined]  # the stub has no PCG64 here
        self._drawn = blocks(rng.random)
        self._n_drawn = position
        self._uniforms: Floats = np.empty(0)
        self._next = 0  # the first of _uniforms that is in no block yet
        self._block: list[Any] = []
        self._unread: Iterator[Any] = iter(self._block)
        self.slots: Iterator[int] = chain.from_iterable(self._blocks())

    def _blocks(self) -> Iterator[Iterable[int]]:
        while True:
            if self._next >= len(self._uniforms):
                self._draw()
            uniforms = self._uniforms[self._next :]
            self._next = len(self._uniforms)
            self._block = self.sampler.locate(uniforms)
            self._unread = iter(self._block)
            find = self.sampler.find
            yield self._unread if find is None else map(find, self._unread)

    def _draw(self) -> None:
        self._uniforms, self._next = next(self._drawn), 0
        self._n_drawn += len(self._uniforms)

    @property
    def position(self) -> int:
        """How many numbers were taken."""
        return self._n_drawn - (len(self._uniforms) - self._next) - length_hint(self._unread)

    def remap(self) -> None:
        """Have all numbers that gave no slot yet turned by the sampler as it is now."""
        self._next -= length_hint(self._unread)
        # Emptying the list under its iterator ends the block, also for whoever iterates over it.
        self._block.clear()

    def uniform(self) -> float:
        """Take one number off the sequence as it is."""
        self.remap()
        if self._next >= len(self._uniforms):
            self._draw()
        self._next += 1
        return float(self._uniforms[self._next - 1])


class Categorical:
    """Draws from n slots by fixed weights, from which slots can be dropped.

    Parameters
    ----------
    n : int
        Number of slots.
    weights : array of shape (n,), optional
        Equal if not given.
    dropped : iterable of int
        What is dropped already.

    Attributes
    ----------
    dropped : dict of int
        Its keys are the dropped slots. Their order is part of the sequence, for it tells when tables are
        rebuilt.
    """

    find = None

    def __init__(self, n: int, weights: Floats | None = None, dropped: Iterable[int] = ()) -> None:
        self._weights = weights
        self._live: npt.NDArray[np.intp] | None = None  # None: all of them
        self.dropped: dict[int, None] = {}
        self.n_live = n if weights is None else int(np.count_nonzero(weights))
        self._build(n)
        for slot in dropped:
            self.drop(slot)

    def _build(self, n: int) -> None:
        self._mass = 0.0  # of slots dropped since the table was built, as a share of it
        self._n = n
        if self._weights is None:
            self._table = None
        else:
            weights = self._weights if self._live is None else self._weights[self._live]
            self._scale = scale(weights)
            self._table = np.cumsum(weights if self._scale == 1 else weights * self._scale)

    def __contains__(self, slot: int) -> bool:
        """Whether `slot` was not dropped."""
        return slot not in self.dropped

    def locate(self, uniforms: Floats) -> list[int]:
        """Return the slots of a block of numbers."""
        # u <= 1 - 2**-53, and then u * n rounds to less than n
        if self._table is None:
            found = (uniforms * self._n).astype(np.intp)
        else:
            found = _search(self._table, uniforms * self._table[-1])
        if self._live is not None:
            found = self._live[found]
        return found.tolist()  # type: ignore[no-any-return]  # numpy types it as Any

    def drop(self, slot: int) -> bool:
        """Drop a slot, and return whether that changes what numbers turn into.

        Until it does, the slot may still be drawn, and is to be rejected.
        """
        if slot in self.dropped:
            return False
        self.dropped[slot] = None
        if self._weights is None:
            self._mass += 1 / self._n
        elif self._weights[slot] == 0:
            return False
        else:
            self._mass += float(self._weights[slot] * self._scale / self._table[-1])  # type: ignore[index]
        self.n_live -= 1
        if self._mass < 0.5 or not self.n_live:
            return False
        live = np.arange(self._n) if self._live is None else self._live
        self._live = live[~np.isin(live, list(self.dropped))]
        self._build(len(self._live))
        return True


class SumTree:
    """Draws from n slots by weights that change all the time.

    Parameters
    ----------
    n : int
        Number of slots; all weights are 0 at first.
    """

    def __init__(self, n: int) -> None:
        self._first_leaf = 1 << max(n - 1, 0).bit_length()
        self._weights = [0.0] * n
        self._scale = 0  # exponent of the power of two by which the tree's weights are larger
        self._tree = [0.0] * (2 * self._first_leaf)

    def locate(self, uniforms: Floats) -> list[float]:
        """Return the numbers, for :meth:`find`."""
        return uniforms.tolist()  # type: ignore[no-any-return]  # numpy types it as Any

    def find(self, uniform: float) -> int:
        """Return the slot for a number from [0, 1); the sum of the weights must not be 0."""
        tree, first_leaf = self._tree, self._first_leaf
        rest = uniform * tree[1]
        node = 1
        while node < first_leaf:
            node += node
            left = tree[node]
            # Rounding may bring rest up to the sum of both; a side that weighs nothing is never taken.
            if rest >= left and tree[node + 1] > 0.0:
                rest -= left
                node += 1
        return node - first_leaf

    @property
    def weights(self) -> Sequence[float]:
        """The weights of all slots."""
        return self._weights

    def set(self, slot: int, weight: float) -> None:
        """Give a slot another weight."""
        self._weights[slot] = weight
        tree = self._tree
        node = slot + self._first_leaf
        if self._scale:
            with np.errstate(over="ignore"):  # inf calls for another scale, see below
                weight = float(np.ldexp(weight, self._scale))
        tree[node] = weight
        while node > 1:
            node >>= 1
            tree[node] = tree[2 * node] + tree[2 * node + 1]
        if not 1e-200 < tree[1] < 1e200 and any(self._weights):
            self._rescale()

    def share(self, slot: int) -> float:
        """Return a slot's weight divided by the sum of all."""
        return self._tree[slot + self._first_leaf] / self._tree[1]

    def _rescale(self) -> None:
        self._scale = -int(np.frexp(max(self._weights))[1])
        tree, first_leaf = self._tree, self._first_leaf
        tree[first_leaf : first_leaf + len(self._weights)] = np.ldexp(self._weights, self._scale).tolist()
        for node in range(first_leaf - 1, 0, -1):
            tree[node] = tree[2 * node] + tree[2 * node + 1]


def _search(table: Floats, values: Floats) -> npt.NDArray[np.intp]:
    """Return where in a sorted table each value belongs, to the right of what equals it."""
    if len(table) * table.itemsize < CACHE_BYTES or len(values) < 64:
        return np.searchsorted(table, values, side="right")
    # Looked up in order, neighbours find the table in the cache.
    order = np.argsort(values)
    found = np.empty(len(values), np.intp)
    found[order] = np.searchsorted(table, values[order], side="right")
    return found
