"""RoundRobinMux: one item of each stream in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from operator import length_hint
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
        if resumed and permutations is not None:
            restore_generator(permutations, resumed["permutation"])
        for self._epoch in count(resumed["epoch"] if resumed else 0):
            order = range(self.n_streams)
            if permutations is not None:
                self._permutation = generator_state(permutations)
                order = permutations.permutation(self.n_streams).tolist()
            samples = self._cycle_through(order, resumed or {"gone": (), "ended": (), "turns": 0})
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
        streams: list[Iterator[T_co] | None] = [UNOPENED] * self.n_streams
        self._streams = streams
        # Those that have ended: in rounds that are over, and in this one, where they still have their turn.
        self._gone, self._ended = list(resumed["gone"]), list(resumed["ended"])
        for index in [*self._gone, *self._ended]:
            streams[index] = None
        gone = set(self._gone)
        self._order = [index for index in order if index not in gone]
        turns: int = resumed["turns"]
        if self._opener.is_background:
            for index in self._order:
                if streams[index] is not None:
                    self.open_early(index, index, self._epoch, active=True)
        with self.closing(streams):
            while self._order:
                self._turns = iter(self._order)  # knows how many are left of this round
                next(islice(self._turns, turns, turns), None)
                turns = 0
                for index in self._turns:
                    try:
                        yield next(streams[index])  # type: ignore[arg-type]  # None is not in order
                        continue
                    except StopIteration:
                        is_new = streams[index] is UNOPENED
                    if is_new:
                        stream = streams[index] = self.open_stream(index, index, self._epoch)
                        if first := take_one(stream):
                            yield first.pop()
                            continue
                    streams[index] = None
                    self._ended.append(index)
                if self._ended:
                    self._order = [index for index in self._order if streams[index] is not None]
                    self._gone += self._ended
                    self._ended = []

    def state(self) -> State:
        streams = enumerate(self._streams)
        return {
            "epoch": self._epoch,
            "permutation": self._permutation,
            "gone": list(self._gone),
            "ended": list(self._ended),
            "turns": len(self._order) - length_hint(self._turns),
            "streams": self.stream_states(
                ((i, self._epoch), stream) for i, stream in streams if stream is not None
            ),
        }

    def last_stream(self) -> tuple[int, tuple[int, ...], Iterator[Any]]:
        index = self._order[-1 - length_hint(self._turns)]
        stream = self._streams[index]
        assert stream is not None  # it has given a sample
        return index, (index, self._epoch), stream
