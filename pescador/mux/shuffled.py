"""ShuffledMux: all streams at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from ..opening import State
from ..sampling import Categorical, Draws
from .base import UNOPENED, knows_count, take_one
from .weighted import WeightedMux

__all__ = ["ShuffledMux"]

T_co = TypeVar("T_co", covariant=True)


class ShuffledMux(WeightedMux[T_co]):
    """Draw each sample from a random stream; all streams are active.

    Streams open when they are first drawn. One that ends starts again, and one that yields nothing
    drops out; the mux ends when all have dropped out.

    Parameters
    ----------
    streamers : iterable of Streamer or iterable
        What to draw from.
    weights : array-like of shape (n_streams,), optional
        Proportions in which samples are drawn; they need not add up to 1. Equal if not given. A
        streamer of weight 0 is never opened. May be changed while the mux runs, see
        :attr:`weights`.
    random_state : int, SeedSequence, Generator, RandomState or None
        Governs the draws, and is passed on to the streams.

    Examples
    --------
    >>> from pescador import ShuffledMux
    >>> ''.join(ShuffledMux(['a', 'b'], weights=[0.75, 0.25], random_state=0)(max_iter=12))
    'baaaaaabaaba'
    """

    @knows_count
    def samples(self) -> Iterator[T_co]:
        resumed = self.resumed or {"draws": 0, "empty": ()}
        self._choice = Categorical(self.n_streams, self.weights, resumed["empty"])
        self._draws = Draws(self.generator(), self._choice, resumed["draws"])
        self._streams: list[Iterator[T_co]] = [UNOPENED] * self.n_streams
        # How often each stream was opened; where the mux goes on, a stream that was open is opened once more.
        self._openings: dict[int, int] = {key[0]: key[1] for key in self._resumed}
        self._empty: list[int] = list(resumed["empty"])
        self._n_void = resumed["draws"] - self._n_resumed
        streams = self._streams
        if self._opener.is_background:
            for index in range(self.n_streams):
                if index in self._choice and (self.weights is None or self.weights[index]):
                    self.open_early(index, index, self._openings.get(index, 0), active=True)
        with self._running(), self.closing(streams):
            for block in self._draws.blocks:
                for index in block:
                    try:
                        yield next(streams[index])
                        continue
                    except StopIteration:
                        first = self._start(index)
                    if first:
                        yield first.pop()
                        continue
                    self._n_void += 1
                    if not self._choice.n_live:
                        return

    def _start(self, index: int) -> list[T_co]:
        """Open a stream (again), and return a list of its first sample, which is empty if there is none."""
        if index not in self._choice:
            return []
        has_begun = True
        while has_begun:  # one that stood at its end when the mux was saved starts again
            opening = self._openings.get(index, 0)
            self._openings[index] = opening + 1
            has_begun = (index, opening) in self._resumed
            stream = self._streams[index] = self.open_stream(index, index, opening)
            if first := take_one(stream):
                return first
        self._empty.append(index)
        if self._choice.drop(index):
            self._draws.remap()
        return []

    def state(self) -> State:
        keys = [key if key in self._resumed else (key[0], key[1] - 1) for key in self._openings.items()]
        return {
            "draws": self._draws.position,
            "empty": list(self._empty),
            "streams": self.stream_states((key, self._streams[key[0]]) for key in keys),
        }

    def last_stream(self) -> tuple[int, tuple[int, ...], Iterator[T_co]]:
        index = self._local("index")
        return index, (index, self._openings[index] - 1), self._streams[index]

    def _reweigh(self) -> None:
        self._draws.sampler = self._choice = Categorical(self.n_streams, self.weights, self._empty)
        self._draws.remap()
