"""StochasticMux: a bounded working set that is replaced all the time.

There are `n_active` slots. Each holds one activation: a stream and its budget. A sample is drawn from a
random slot. When a stream has ended or used up its budget, which shows when it is drawn next, the next
activation takes its slot, and the draw is made anew. A stream opens at the first draw of its slot.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import numpy.typing as npt

from .. import seeding
from ..checks import whole_number
from ..opening import State
from ..sampling import Categorical, Draws, SumTree, scale
from ..seeding import RandomState
from .activations import MODES, Activations, Budgets, Exhaustive, Proposals, Scout
from .base import UNOPENED, Member, check_mode, knows_count, take_one
from .orders import systematic_sample
from .weighted import WeightedMux

__all__ = ["StochasticMux"]

T_co = TypeVar("T_co", covariant=True)


class StochasticMux(WeightedMux[T_co]):
    """Draw samples from `n_active` streams at a time, which are replaced at random.

    Parameters
    ----------
    streamers : iterable of Streamer or iterable
        What to draw from.
    n_active : int
        Number of streams that are active at a time. Where they may not repeat, at most so many: all of them
        if there are fewer.
    rate : float or None
        Mean number of samples that a stream gives until it is replaced; at least 1. None runs each
        stream to its end.
    weights : array-like of shape (n_streams,), optional
        Proportions; they need not add up to 1. Equal if not given. A streamer of weight 0 is never
        opened. May be changed while the mux runs, see :attr:`weights`.
    mode : {'with_replacement', 'single_active', 'exhaustive'}
        'with_replacement': any stream may be opened at any time, in proportion to its weight, and
        active streams are drawn equally, so that `weights` are the long-run proportions of samples
        (of streams that do not end before their budget). The first working set is a systematic sample,
        see Notes.
        'single_active': a stream is active at most once at a time. 'exhaustive': each stream is
        opened once, in a random order, and the mux ends when all have ended. In both, active streams
        are drawn in proportion to their weights.
    prune_empty_streams : bool
        Whether a stream that yields nothing is never opened again. If False it may be, until all
        streams are found empty in a row.
    random_state : int, SeedSequence, Generator, RandomState or None
        Governs the draws, and is passed on to the streams.
    dist : {'poisson', 'constant', 'binomial'}
        Distribution of the number of samples that a stream gives, see Notes.

    Raises
    ------
    PescadorError
        If a parameter has a value that cannot work.

    Notes
    -----
    In mode 'with_replacement', a streamer with a share p of the weights is in the first working set
    floor(n_active * p) or ceil(n_active * p) times, n_active * p times on average. With as many active
    streams as there are streamers, and equal weights, each is active once; with ``rate=None``, for good.

    Each distribution has mean `rate` and a minimum of 1. 'poisson' is 1 + Poisson(rate - 1), of
    variance rate - 1. 'constant' is `rate` itself. 'binomial' is 1 + Binomial(N, p) with N = (rate -
    1) / p rounded up, where p is the stream's share of the draws when it is activated, of variance
    (rate - 1)(1 - p): how often the mux replaces a stream then depends on `rate` and `n_active` alone.

    Examples
    --------
    >>> from pescador import StochasticMux
    >>> mux = StochasticMux(['aaaa', 'bbbb', 'cccc'], n_active=2, rate=None, mode='exhaustive',
    ...                     random_state=0)
    >>> ''.join(mux)
    'bcbccbcbaaaa'
    """

    def __init__(
        self,
        streamers: Iterable[Member[T_co]],
        n_active: int,
        rate: float | None,
        weights: npt.ArrayLike | None = None,
        mode: str = "with_replacement",
        prune_empty_streams: bool = True,
        random_state: RandomState = None,
        dist: str = "poisson",
    ) -> None:
        super().__init__(streamers, weights, random_state)
        self.mode = check_mode(mode, MODES)
        Budgets.check(rate, dist)
        self.n_active = whole_number(n_active, "n_active", 1)
        self.rate = rate
        self.dist = dist
        self.prune_empty_streams = prune_empty_streams

    @property
    def _n_at_a_time(self) -> int:
        return self.n_active if self.mode == "with_replacement" else min(self.n_active, self.n_streams)

    @knows_count
    def samples(self) -> Iterator[T_co]:
        resumed = self.resumed or {}
        self._weighted = self.weights is not None and self.mode != "with_replacement"
        self._weighted = resumed.get("weighted", self._weighted)
        self._n_slots = self._n_at_a_time
        self._first: list[int] = []  # what the first working set consists of, if it is not drawn as any other
        if self.mode == "with_replacement" and not resumed:
            rng = self._seed.child(seeding.FIRST).generator()
            self._first = systematic_sample(self.n_streams, self.weights, self._n_slots, rng)
        self._activations = self._make_activations()
        self._budgets = self._make_budgets()
        self._scout: Scout | None = None
        if self._opener.ahead and not (self._weighted and self.dist == "binomial"):
            self._scout = Scout(self._make_activations(), self._make_budgets(), self._opener.ahead)
        # position, index and budget of what is in each slot
        self._assigned: list[tuple[int, int, int | None] | None] = [None] * self._n_slots
        self._active: set[int] = set()  # by index; kept where streams may not repeat
        # found empty since the last stream that was not; not pruned
        self._barren: set[int] = set(resumed.get("barren", ()))
        # slots that wait until barren streams are tried again
        self._vacant: list[int] = list(resumed.get("vacant", ()))
        self._total = self._total_weight()
        self._tree = SumTree(self._n_slots) if resumed.get("tree", self._weighted) else None
        self._choice = Categorical(self._n_slots, None, resumed.get("left", ()))
        self._draws = Draws(self.generator(), self._tree or self._choice, resumed.get("draws", 0))
        self._streams: list[Iterator[T_co]] = [UNOPENED] * self._n_slots
        self._n_filled = 0
        self._n_void = resumed.get("draws", 0) - self._n_resumed

        streams = self._streams
        if resumed:
            self._reassign(resumed)
        with self._running(), self.closing(streams):
            if not resumed:
                # A budget may depend on the weights of all active streams, so those come first.
                for slot in [slot for slot in range(self._n_slots) if self._assign(slot)]:
                    self._allot(slot)
            if not self._n_filled:
                return
            for block in self._draws.blocks:
                for slot in block:
                    try:
                        yield next(streams[slot])
                        continue
                    except StopIteration:
                        first = self._advance(slot)
                    if first:
                        yield first.pop()
                        continue
                    self._n_void += 1
                    if not self._n_filled:
                        return

    def state(self) -> State:
        assigned = [(slot, entry) for slot, entry in enumerate(self._assigned) if entry is not None]
        shares: list[list[Any]] = []
        if self._tree:  # what was assigned before the weights were changed has another share than now
            weights = self._tree.weights
            shares = [
                [slot, weights[slot]] for slot, (_, i, _) in assigned if weights[slot] != self._share(i)
            ]
        return {
            "draws": self._draws.position,
            "activations": self._activations.state(),
            "budgets": self._budgets.state(),
            "slots": [[slot, *entry] for slot, entry in assigned],
            "streams": self.stream_states(((entry[0],), self._streams[slot]) for slot, entry in assigned),
            "weighted": self._weighted,
            "tree": self._tree is not None,
            "shares": shares,
            "barren": list(self._barren),
            "vacant": list(self._vacant),
            "left": list(self._choice.dropped),
        }

    def last_stream(self) -> tuple[int, tuple[int, ...], Iterator[T_co]]:
        slot = self._local("slot")
        position, index, _ = cast("tuple[int, int, int | None]", self._assigned[slot])
        return index, (position,), self._streams[slot]

    def _reassign(self, resumed: State) -> None:
        """Assign to the slots what they held."""
        shares = dict(resumed["shares"])
        for slot, position, index, budget in resumed["slots"]:
            self._assigned[slot] = position, index, budget
            if self.mode != "with_replacement":
                self._active.add(index)
            if self._tree:
                self._tree.set(slot, shares.get(slot, self._share(index)))
            self._n_filled += 1
        for slot, assigned in enumerate(self._assigned):
            if assigned is not None:
                self._open_soon(slot)

    def _advance(self, slot: int) -> list[T_co]:
        """Open the stream of a slot and return a list of its first sample.

        The list is empty if the stream has ended or has none; then the next activation has taken the slot.
        """
        assigned = self._assigned[slot]
        if assigned is None:
            return []
        position, index, budget = assigned
        if self._streams[slot] is UNOPENED:
            has_begun = bool(self._resumed) and (position,) in self._resumed
            stream = self._streams[slot] = self.open_stream(index, position, max_iter=budget)
            if first := take_one(stream):
                if self._barren and not has_begun:
                    self._retry_barren()
                return first
            if not has_begun:
                self._take_as_empty(index)
        self._active.discard(index)
        self._assigned[slot] = None
        self._n_filled -= 1
        if self._assign(slot):
            self._allot(slot)
        return []

    def _take_as_empty(self, index: int) -> None:
        """Take note that a stream has yielded nothing."""
        if not self.prune_empty_streams:
            self._barren.add(index)
            return
        self._activations.drop(index)
        if self._scout is not None:
            self._scout.activations.drop(index)

    def _make_activations(self) -> Activations:
        rng = self._seed.child(seeding.ACTIVATIONS).generator()
        state = self.resumed and self.resumed["activations"]
        if self.mode == "exhaustive":
            return Exhaustive(self.n_streams, self.weights, rng, state)
        return Proposals(self.n_streams, self.weights, rng, self._first, state)

    def _make_budgets(self) -> Budgets:
        share = None if self._weighted else 1 / self._n_slots
        return Budgets(self.rate, self.dist, self._seed, share, self.resumed and self.resumed["budgets"])

    def _assign(self, slot: int) -> bool:
        """Give an empty slot the next activation; return whether there is one."""
        activation = self._activations.take(self._excluded())
        if activation is None:
            self._vacate(slot)
            return False
        position, index = activation
        if self.mode != "with_replacement":
            self._active.add(index)
        if self._tree:
            self._tree.set(slot, self._share(index))
        self._assigned[slot] = position, index, None
        self._streams[slot] = UNOPENED
        self._n_filled += 1
        return True

    def _excluded(self) -> set[int]:
        """Return the streams that cannot be opened now."""
        return self._active | self._barren if self._barren else self._active

    def _vacate(self, slot: int) -> None:
        """Leave a slot empty."""
        if self._tree:
            self._tree.set(slot, 0.0)
        if self._barren:
            self._vacant.append(slot)
        elif not self._tree and self._choice.drop(slot):
            self._draws.remap()

    def _retry_barren(self) -> None:
        """Let streams that were found empty be opened again, now that another was not."""
        self._barren.clear()
        vacant, self._vacant = self._vacant, []
        for slot in vacant:
            if self._assign(slot):
                self._allot(slot)

    def _allot(self, slot: int) -> None:
        """Give the activation in a slot its budget."""
        position, index, _ = cast("tuple[int, int, int | None]", self._assigned[slot])
        share = self._tree.share(slot) if self._tree else 1 / self._n_slots
        budget = self._budgets.at(position, share)
        self._assigned[slot] = position, index, budget
        self._open_soon(slot)

    def _open_soon(self, slot: int) -> None:
        """Have what is in a slot opened in the background, and what will probably come after it."""
        position, index, budget = cast("tuple[int, int, int | None]", self._assigned[slot])
        if self._opener.is_background:
            self.open_early(index, position, max_iter=budget, active=True)
        if self._scout is not None:
            for guess, index, budget in self._scout.guess(position, self._excluded()):
                self.open_early(index, guess, max_iter=budget)

    def _share(self, index: int) -> float:
        """Return the weight of a stream, as a share of the sum of all."""
        if self.weights is None:
            return 1 / self.n_streams
        scale, total = self._total
        return max(float(self.weights[index]) * scale / total, sys.float_info.min)

    def _total_weight(self) -> tuple[float, float]:
        """Return what weights are multiplied by, and their sum then."""
        if self.weights is None:
            return 1.0, float(self.n_streams)
        factor = scale(self.weights)
        return factor, float((self.weights if factor == 1 else self.weights * factor).sum())

    def _reweigh(self) -> None:
        """Activate by other weights from now on; active streams are drawn as before."""
        self._activations.reweigh(self.weights)
        self._scout = None  # it would guess wrong from now on
        self._barren.clear()
        if self.mode == "with_replacement":
            return
        if self._tree is None:
            self._tree = SumTree(self._n_slots)
            for slot, assigned in enumerate(self._assigned):
                self._tree.set(slot, 1 / self.n_streams if assigned else 0.0)
            self._draws.sampler = self._tree
            self._draws.remap()
        self._total = self._total_weight()
