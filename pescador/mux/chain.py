"""ChainMux: one stream after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, TypeVar

from .. import seeding
from ..core import Streamer
from ..exceptions import ParameterError
from ..opening import Context
from ..seeding import RandomState
from .base import BaseMux, as_streamer, check_mode, take_one

__all__ = ["ChainMux"]

T_co = TypeVar("T_co", covariant=True)


class ChainMux(BaseMux[T_co]):
    """Run the first stream to its end, then the second, and so on.

    Parameters
    ----------
    streamers : iterable of Streamer or iterable
        A collection, or a generator or Streamer that yields streamers, which are taken one at a time.
    mode : {'exhaustive', 'cycle'}
        What happens after the last stream: 'exhaustive' ends, 'cycle' starts again with the first.
        A cycle in which no stream yields anything ends.
    random_state : int, SeedSequence, Generator, RandomState or None
        Passed on to the streams; a chain draws nothing itself.

    Examples
    --------
    >>> from pescador import ChainMux
    >>> ''.join(ChainMux(['abc', 'de']))
    'abcde'
    >>> ''.join(ChainMux(['abc', 'de'], mode='cycle')(max_iter=8))
    'abcdeabc'
    """

    def __init__(
        self, streamers: Iterable[Any], mode: str = "exhaustive", random_state: RandomState = None
    ) -> None:
        self.mode = check_mode(mode, ("exhaustive", "cycle"))
        if isinstance(streamers, Streamer | Iterator):
            self._set_up(streamers, random_state)
        else:
            super().__init__(streamers, random_state)

    @property
    def n_streams(self) -> int:
        """Number of streamers, if they were given as a collection."""
        if isinstance(self.streamer, list):
            return len(self.streamer)
        raise ParameterError("a chain over a generator of streamers does not know how many there are")

    @property
    def _n_at_a_time(self) -> int:
        return 1

    def samples(self) -> Iterator[T_co]:
        activation = count()
        for epoch in count():
            barren = True
            members: Any = self.streamer
            if isinstance(members, Streamer):
                members = members.open(Context(self._seed.child(seeding.ARGUMENT, epoch)))
            with self.closing([members] if members is not self.streamer else []):
                for position, member in enumerate(members):
                    number = next(activation)
                    if isinstance(members, list):
                        stream = self.open_stream(position, number)
                        for ahead in range(1, self._opener.ahead + 1):
                            if position + ahead < len(members) or self.mode == "cycle":
                                self.open_early((position + ahead) % len(members), number + ahead)
                    else:  # the next one is not known before it is asked for
                        stream = self._open(as_streamer(member, position), number)
                    with self.closing([stream]):
                        if first := take_one(stream):
                            barren = False
                            yield first.pop()
                            yield from stream
            if barren or self.mode == "exhaustive":
                return

    def __repr__(self) -> str:
        many = f"{len(self.streamer)} " if isinstance(self.streamer, list) else ""
        return f"<ChainMux of {many}streamers>"
