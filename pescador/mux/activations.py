"""Which stream a StochasticMux opens next, and for how many samples.

Both are sequences fixed by the seed of the mux. An activation is known by its *position* in the
sequence, from which the seed of the stream and its budget follow. Positions that turn out not to be
usable (a stream that is already active, or was found empty) are passed over and keep their number, so
what is at one position never depends on how long the streams before it were.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence, Set
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from .. import seeding
from ..exceptions import ParameterError
from ..opening import State
from ..sampling import Categorical, Draws, Floats, blocks
from ..seeding import Seed, generator_state, restore_generator
from .base import check_mode
from .orders import Permutation

__all__ = ["Activations", "Budgets", "Exhaustive", "Proposals", "Scout"]

MODES = ("with_replacement", "single_active", "exhaustive")
DISTS = ("poisson", "constant", "binomial")

# How many proposals in a row may be unusable before the draw is made among the usable ones alone,
# which costs O(n) but always succeeds.
MAX_PROPOSALS = 100


class Proposals:
    """Independent draws by weight, of which the first that can be used is taken.

    That is a draw by weight among those that can be used. Before them may come a first working set, which was
    drawn in another way.

    Parameters
    ----------
    n : int
        Number of streams.
    weights : array of shape (n,) or None
        Equal if None.
    rng : numpy.random.Generator
        Used by nobody else.
    first : sequence of int
        Indices of the first working set, all of which can be used.
    state : dict, optional
        What :meth:`state` returned; the first working set was taken before that.
    """

    def __init__(
        self,
        n: int,
        weights: Floats | None,
        rng: np.random.Generator,
        first: Sequence[int] = (),
        state: State | None = None,
    ) -> None:
        self._n = n
        self._first = first if state is None else ()
        self._weights = weights
        state = state or {"position": -1, "draws": 0, "dropped": ()}
        self._choice = Categorical(n, weights, state["dropped"])
        self._draws = Draws(rng, self._choice, state["draws"])
        self._position: int = state["position"]

    def state(self) -> State:
        """Return where the sequence stands."""
        dropped = list(self._choice.dropped)
        return {"position": self._position, "draws": self._draws.position, "dropped": dropped}

    def take(self, excluded: Set[int]) -> tuple[int, int] | None:
        """Return position and index of the next stream to open, None if there is none.

        Streams in `excluded` cannot be opened now.
        """
        if self._position + 1 < len(self._first):
            self._position += 1
            return self._position, self._first[self._position]
        choice = self._choice
        if choice.n_live > len(excluded):
            for index in islice(self._draws.slots, MAX_PROPOSALS):
                self._position += 1
                if index in choice and index not in excluded:
                    return self._position, index
        return self._take_among_usable(excluded)

    def _take_among_usable(self, excluded: Set[int]) -> tuple[int, int] | None:
        weights = np.ones(self._n) if self._weights is None else self._weights.copy()
        weights[list(excluded | self._choice.dropped.keys())] = 0
        if not weights.any():
            return None
        self._position += 1
        index = Categorical(self._n, weights).locate(np.array([self._draws.uniform()]))[0]
        return self._position, index

    def drop(self, index: int) -> None:
        """Never return `index` again."""
        if self._choice.drop(index):
            self._draws.remap()

    def reweigh(self, weights: Floats | None) -> None:
        """Use other weights from now on."""
        self._weights = weights
        self._draws.sampler = self._choice = Categorical(self._n, weights, self._choice.dropped)
        self._draws.remap()


class Exhaustive:
    """One weighted permutation: each stream once. What is said of the methods of Proposals holds here."""

    def __init__(
        self, n: int, weights: Floats | None, rng: np.random.Generator, state: State | None = None
    ) -> None:
        self._order = Permutation(n, weights, rng, state and state["order"])
        self._position: int = state["position"] if state else -1

    def state(self) -> State:
        """Return where the sequence stands."""
        return {"position": self._position, "order": self._order.state()}

    def take(self, excluded: Set[int]) -> tuple[int, int] | None:
        if not self._order:
            return None
        self._position += 1
        return self._position, self._order.pop()

    def drop(self, index: int) -> None:
        """Nothing comes twice anyway."""

    def reweigh(self, weights: Floats | None) -> None:
        self._order.reweigh(weights)


Activations = Proposals | Exhaustive
"""The sequence of streams that a mux opens."""


class Budgets:
    """How many samples each activation gives: at least 1, and `rate` on average.

    Parameters
    ----------
    rate : float or None
        None gives each stream as many samples as it has.
    dist : {'poisson', 'constant', 'binomial'}
        1 + Poisson(rate - 1); `rate` itself; or 1 + Binomial(N, p) with N·p = rate - 1 and p as close
        to the stream's share of the draws as a whole N allows.
    seed : Seed
        That of the mux.
    share : float or None
        The share of the draws that each stream has while it is active; None if they differ.
    state : dict, optional
        What :meth:`state` returned.
    """

    def __init__(
        self, rate: float | None, dist: str, seed: Seed, share: float | None, state: State | None = None
    ) -> None:
        self.rate = rate
        self._dist = dist
        self._seed = seed.child(seeding.BUDGETS)
        self._share = share
        self._next: int = state["next"] if state else 0  # position of what _values gives next
        # Where the last block began, for nobody knows how many steps of the generator a number takes.
        self._block = state["block"] if state else None
        self._values = chain.from_iterable(self._blocks())
        if self._block is not None:
            n = self._next - self._block[0]
            next(islice(self._values, n, n), None)

    def state(self) -> State | None:
        """Return where the sequence stands, None if a budget depends on nothing before it."""
        return None if self._block is None else {"next": self._next, "block": self._block}

    @staticmethod
    def check(rate: float | None, dist: str) -> None:
        """Raise ParameterError unless budgets of this kind exist."""
        check_mode(dist, DISTS, "dist")
        if rate is None:
            return
        if not isinstance(rate, int | float | np.integer | np.floating) or not 1 <= rate < 2**53:
            raise ParameterError(
                "rate is the mean number of samples of an activation, which has at least one: it must be "
                f"None or a number from 1 on, got {rate!r}"
            )
        if dist == "constant" and rate != int(rate):
            raise ParameterError(f"with dist='constant', rate must be a whole number, got {rate!r}")

    def at(self, position: int, share: float) -> int | None:
        """Return the budget of an activation; positions must be asked for in rising order.

        `share` counts only where shares differ.
        """
        if self.rate is None:
            return None
        if self._dist == "constant":
            return int(self.rate)
        if self._dist == "binomial" and self._share is None:
            rng = self._seed.child(position).generator()
            return 1 + int(rng.binomial(*_binomial(self.rate, share)))
        skip = position - self._next
        self._next = position + 1
        return next(islice(self._values, skip, None)) if skip else next(self._values)

    def _blocks(self) -> Iterator[list[int]]:
        rng, rate, share = self._seed.generator(), self.rate, self._share
        assert rate is not None
        position = 0
        if self._block is not None:
            position = self._block[0]
            restore_generator(rng, self._block[1])

        def draw(size: int) -> npt.NDArray[np.int64]:
            nonlocal position
            self._block = [position, generator_state(rng)]
            position += size
            if self._dist == "poisson":
                return rng.poisson(rate - 1, size)
            assert share is not None
            return rng.binomial(*_binomial(rate, share), size)

        for extra in blocks(draw):
            yield (extra + 1).tolist()


class Scout:
    """Runs ahead of the mux through its sequence of activations, and tells what it will open next.

    It follows the same sequence, so it is right unless something happens that nobody can foresee: a
    stream turns out to be empty, or one that may not repeat is still active when its turn comes.
    """

    def __init__(self, activations: Activations, budgets: Budgets, ahead: int) -> None:
        self.activations = activations
        self._budgets = budgets
        self._ahead = ahead
        self._guesses: deque[tuple[int, int]] = deque()  # position, index

    def guess(self, position: int, excluded: set[int]) -> Iterator[tuple[int, int, int | None]]:
        """Yield position, index and budget of what comes after `position` and was not told before."""
        while self._guesses and self._guesses[0][0] <= position:
            self._guesses.popleft()
        while len(self._guesses) < self._ahead:
            if excluded:
                excluded = excluded | {index for _, index in self._guesses}
            taken = self.activations.take(excluded)
            if taken is None:
                return
            if taken[0] > position:
                self._guesses.append(taken)
                yield (*taken, self._budgets.at(taken[0], 0.0))


def _binomial(rate: float, share: float) -> tuple[int, float]:
    """Return the N and p of a budget."""
    # Beyond 2**32 trials it is a Poisson distribution, and p would lose its precision.
    trials = max(1, math.ceil(min((rate - 1) / share, max(2.0**32, rate - 1))))
    return trials, (rate - 1) / trials
