"""Slots in random order by weight, when it is known beforehand how many are wanted.

:func:`systematic_sample` gives some slots with each as often as its weight says, and
:class:`Permutation` gives all of them, each once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..opening import State
from ..sampling import Floats, scale
from ..seeding import generator_state, restore_generator

__all__ = ["Permutation", "systematic_sample"]

# Of a systematic sample; the number of a bin is 16 bits wide.
SLOTS_PER_BIN = 256
MAX_BINS = 1 << 16

# How many keys of a permutation are looked at to tell how all of them are spread.
SAMPLE = 4096


def systematic_sample(n: int, weights: Floats | None, size: int, rng: np.random.Generator) -> list[int]:
    """Return `size` of n slots in random order, each as often as its share of the weights says.

    With p = size * weights[i] / sum(weights), slot i comes floor(p) or ceil(p) times, p times on average.
    Points at equal distances, with a random start, are looked up in the cumulated weights [1]_. Those are in
    a random order, so that the order in which the slots were given has no part in which of them come
    together. For equal weights, the same is one random sample without replacement, beside all slots so many
    times as they fit; it costs O(size).

    Parameters
    ----------
    n : int
        Number of slots.
    weights : array of shape (n,) or None
        Equal if None.
    size : int
        How many slots are drawn.
    rng : numpy.random.Generator
        Used by nobody else.

    References
    ----------
    .. [1] W. G. Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics 20
       (3), 1949.
    """
    if weights is None:
        rounds, rest = divmod(size, n)
        found = rng.choice(n, rest, replace=False)
        if rounds:
            found = rng.permutation(np.concatenate([np.tile(np.arange(n), rounds), found]))
        return found.tolist()  # type: ignore[no-any-return]  # numpy types it as Any
    # The random order comes in two steps, of which the second concerns few slots: each belongs to a random
    # one of some bins, and within a bin, the order is random again. Shuffling a million slots would cost more
    # than all the rest of a first sample.
    n_bins = 1 + min(n // SLOTS_PER_BIN, MAX_BINS - 1)
    bins = rng.integers(0, n_bins, n, dtype=np.uint16)
    factor = scale(weights)
    ends = np.cumsum(np.bincount(bins, weights if factor == 1 else weights * factor, n_bins))
    points = (rng.random() + np.arange(size)) * (ends[-1] / size)
    # Rounding must not bring a point up to the end of the table, where nothing is.
    points = np.minimum(points, np.nextafter(ends[-1], 0))
    hit = np.searchsorted(ends, points, side="right")  # the bin of each point

    is_hit = np.zeros(n_bins, bool)
    is_hit[hit] = True
    slots = rng.permutation(np.flatnonzero(is_hit[bins] & (weights > 0)))
    slots = slots[np.argsort(bins[slots], kind="stable")]
    bins = bins[slots]
    first, last = np.searchsorted(bins, hit, side="left"), np.searchsorted(bins, hit, side="right") - 1
    table = np.cumsum(weights[slots] * factor)
    # What lies before each bin, in all bins and in those that were hit
    before, before_here = np.insert(ends, 0, 0)[hit], np.insert(table, 0, 0)[first]
    found = np.searchsorted(table, points - before + before_here, side="right")
    found = rng.permutation(slots[np.clip(found, first, last)])
    return found.tolist()  # type: ignore[no-any-return]  # as above


class Permutation:
    """Slots in random order, each once, drawn one after the other by weight.

    The order of ``E / weight`` for independent standard exponential E is such a sequence [1]_. Keys
    are swept from the smallest to the largest, and sorted only as far as they are needed.

    References
    ----------
    .. [1] P. S. Efraimidis and P. G. Spirakis, "Weighted random sampling with a reservoir",
       Information Processing Letters 97 (5), 2006.
    """

    def __init__(
        self, n: int, weights: Floats | None, rng: np.random.Generator, state: State | None = None
    ) -> None:
        self._rng = rng
        self._n = n
        self._n_popped = 0  # since they were drawn
        self._redrawn: State | None = None  # what was left when it was drawn by other weights
        slots = np.arange(n)
        if state is not None and state["redrawn"] is not None:
            self._redrawn = redrawn = state["redrawn"]
            restore_generator(rng, redrawn["rng"])
            slots = np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(redrawn["left"]), np.uint8))[:n])
        self._draw(slots, weights)
        for _ in range(state["popped"] if state else 0):
            self.pop()

    def state(self) -> State:
        """Return where the sequence stands, for another one of the same weights and seed."""
        return {"popped": self._n_popped, "redrawn": self._redrawn}

    def __len__(self) -> int:
        return self._n_left

    def reweigh(self, weights: Floats | None) -> None:
        """Draw what was not drawn yet by other weights."""
        found = np.array(self._sorted, dtype=np.intp)
        rest = np.concatenate([self._slots[self._keys > self._swept], found, self._weightless])
        is_left = np.zeros(self._n, bool)
        is_left[rest] = True
        self._redrawn = {"rng": generator_state(self._rng), "left": np.packbits(is_left).tobytes().hex()}
        self._draw(np.flatnonzero(is_left), weights)

    def _draw(self, slots: npt.NDArray[np.intp], weights: Floats | None) -> None:
        self._n_popped = 0
        self._weightless = slots[:0]  # drawn only if they are given a weight later
        keys = self._rng.standard_exponential(len(slots))
        if weights is not None:
            weights = weights if len(slots) == len(weights) else weights[slots]
            positive = weights > 0
            if not positive.all():
                self._weightless, slots = slots[~positive], slots[positive]
                keys, weights = keys[positive], weights[positive]
            # logarithms, because E / weight overflows for a subnormal weight
            np.log(np.maximum(keys, np.finfo(np.float64).tiny, out=keys), out=keys)
            keys -= np.log(weights)
        self._slots, self._keys = slots, keys
        self._n_left = len(slots)
        self._sorted: list[int] = []  # what comes next, last first
        self._swept = -np.inf  # keys up to here are taken, or in _sorted
        # A sample of the keys tells where to stop next, so that few are found at first, then more.
        self._sample = np.sort(keys[:: max(1, len(keys) // SAMPLE)])
        self._rank = 0

    def pop(self) -> int:
        """Return the next slot."""
        while not self._sorted:
            end = self._sample[self._rank] if self._rank < len(self._sample) else np.inf
            self._rank = 2 * self._rank + 1
            found = np.flatnonzero((self._keys > self._swept) & (self._keys <= end))
            self._swept = end
            self._sorted = self._slots[found[np.argsort(self._keys[found])[::-1]]].tolist()
        self._n_left -= 1
        self._n_popped += 1
        return self._sorted.pop()
