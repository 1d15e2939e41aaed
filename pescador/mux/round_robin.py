"""RoundRobinMux: one item of each stream in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import TypeVar

from ..seeding import RandomState
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
        permutations = self.generator() if self.mode == "permuted_cycle" else None
        order: Iterable[int] = range(self.n_streams)
        for epoch in count():
            if permutations is not None:
                order = permutations.permutation(self.n_streams).tolist()
            samples = self._cycle_through(order, epoch)
            with self.closing([samples]):
                first = take_one(samples)
                if not first:
                    return
                yield first.pop()
                yield from samples
            if self.mode == "exhaustive":
                return

    def _cycle_through(self, order: Iterable[int], epoch: int) -> Iterator[T_co]:
        """Run all streams to their end; each is opened at its first turn."""
        streams: list[Iterator[T_co] | None] = [UNOPENED] * self.n_streams
        if self._opener.is_background:
            for index in order:
                self.open_early(index, index, epoch, active=True)
        with self.closing(streams):
            while order:
                ended = False
                for index in order:
                    try:
                        yield next(streams[index])  # type: ignore[arg-type]  # None is not in order
                        continue
                    except StopIteration:
                        is_new = streams[index] is UNOPENED
                    if is_new:
                        stream = streams[index] = self.open_stream(index, index, epoch)
                        if first := take_one(stream):
                            yield first.pop()
                            continue
                    streams[index] = None
                    ended = True
                if ended:
                    order = [index for index in order if streams[index] is not None]
