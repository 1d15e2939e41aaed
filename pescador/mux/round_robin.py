"""RoundRobinMux: one item of each stream in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, cycle
from typing import Any, TypeVar

from ..opening import State
from ..seeding import RandomState, generator_state, restore_generator
from .base import UNOPENED, BaseMux, Member, check_mode, take_one

__all__ = ["RoundRobinMux"]

T_co = TypeVar("T_co", covariant=True)


class RoundRobinMux(BaseMux[T_co]):
    """Take one item of each stream in turn, in strict order.

    Parameters
    ----------
    streamers : iterable of Streamer or iterable
        What to draw from.
    mode : {'exhaustive', 'cycle', 'permuted_cycle'}
        A stream that ends is left out. When all have ended, 'exhaustive' ends, and 'cycle' starts
        again with all of them; 'permuted_cycle' goes through each cycle in a random order of its own.
        A cycle in which no stream yields anything ends.
    random_state : int, SeedSequence, Generator, RandomState or None
        Governs the permutations, and is passed on to the streams.

    Examples
    --------
    >>> from pescador import RoundRobinMux
    >>> ''.join(RoundRobinMux(['abc', 'x', '12']))
    'ax1b2c'
    >>> ''.join(RoundRobinMux(['ab', 'xy'], mode='cycle')(max_iter=6))
    'axbyax'
    """

    def __init__(
        self, streamers: Iterable[Member[T_co]], mode: str = "exhaustive", random_state: RandomState = None
    ) -> None:
        super().__init__(streamers, random_state)
        self.mode = check_mode(mode, ("exhaustive", "cycle", "permuted_cycle"))

    def samples(self) -> Iterator[T_co]:
        resumed = self.resumed
        permutations = self.generator() if self.mode == "permuted_cycle" else None
        self._permutation: list[Any] | None = None  # where their generator stood before that of this epoch
        if resumed and permutations is not None and resumed["permutation"]:
            restore_generator(permutations, resumed["permutation"])
        for self._epoch in count(resumed["epoch"] if resumed else 0):
            order = range(self.n_streams)
            if permutations is not None:
                self._permutation = generator_state(permutations)
                order = permutations.permutation(self.n_streams).tolist()
            samples = self._cycle_through(order, resumed or {"ended": (), "next": order[0]})
            with self.closing([samples]):
                first = take_one(samples)
                if first:
                    yield first.pop()
                elif not resumed:
                    return
                resumed = None
                yield from samples
            if self.mode == "exhaustive":
                return

    def _cycle_through(self, order: Sequence[int], resumed: State) -> Iterator[T_co]:
        """Run all streams to their end; each is opened at its first turn."""
        self._streams: list[Iterator[T_co]] = [UNOPENED] * self.n_streams
        self._ended = dict.fromkeys(resumed["ended"])
        streams = self._streams
        start = order.index(resumed["next"])
        self._order = [index for index in [*order[start:], *order[:start]] if index not in self._ended]
        if self._opener.is_background:
            for index in self._order:
                self.open_early(index, index, self._epoch, active=True)
        with self.closing(streams):
            while self._order:
                self._n_before = self.n_given  # what is given after that tells whose turn it is
                for index in cycle(self._order):
                    try:
                        yield next(streams[index])
                        continue
                    except StopIteration:
                        is_new = streams[index] is UNOPENED
                    if is_new:
                        stream = streams[index] = self.open_stream(index, index, self._epoch)
                        if first := take_one(stream):
                            yield first.pop()
                            continue
                    self._leave_out(index)
                    turn = self._order.index(index)
                    self._order = self._order[turn + 1 :] + self._order[:turn]
                    break

    def _leave_out(self, index: int) -> None:
        """Take note that a stream has ended."""
        self._ended[index] = None

    def state(self) -> State:
        streams = enumerate(self._streams)
        return {
            "epoch": self._epoch,
            "permutation": self._permutation,
            "ended": list(self._ended),
            "next": self._order[(self.n_given - self._n_before) % len(self._order)],
            "streams": self.stream_states(((i, self._epoch), stream) for i, stream in streams),
        }

    def last_stream(self) -> tuple[int, tuple[int, ...], Iterator[Any]]:
        index = self._order[(self.n_given - self._n_before - 1) % len(self._order)]
        return index, (index, self._epoch), self._streams[index]
