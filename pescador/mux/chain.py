"""ChainMux: one stream after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any, NoReturn, TypeVar, cast

from .. import seeding
from ..core import Streamer
from ..exceptions import ParameterError, PescadorError
from ..isolation import ATOMS
from ..opening import Context, State
from ..seeding import RandomState
from .base import BaseMux, Member, as_streamer, check_mode, take_one

__all__ = ["ChainMux"]

T_co = TypeVar("T_co", covariant=True)


class ChainMux(BaseMux[T_co]):
    """Run the first stream to its end, then the second, and so on.

    Parameters
    ----------
    streamers : iterable of Streamer or iterable, or generator function
        A collection; or what yields streamers, which are then taken one at a time: a generator function, a
        Streamer of one, or a generator, whose streamers are kept, so that the chain can be opened again.
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
    >>> def words():
    ...     yield 'abc'
    ...     yield 'de'
    >>> ''.join(ChainMux(words))
    'abcde'
    """

    def __init__(
        self,
        streamers: Iterable[Member[T_co]] | Callable[[], Iterable[Member[T_co]]],
        mode: str = "exhaustive",
        random_state: RandomState = None,
    ) -> None:
        self.mode = check_mode(mode, ("exhaustive", "cycle"))
        if isinstance(streamers, Iterator):
            streamers = Streamer(_Kept(streamers))
        elif callable(streamers) and not isinstance(streamers, Iterable):
            streamers = Streamer(streamers)
        if isinstance(streamers, Streamer):
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
        resumed = self.resumed or {"epoch": 0, "position": 0, "number": 0}
        start = resumed["position"]
        barren = not self.resumed
        self._number = resumed["number"]
        for self._epoch in count(resumed["epoch"]):
            given = members = cast("Any", self.streamer)
            if isinstance(given, Streamer):
                members = given.open(Context(self._seed.child(seeding.ARGUMENT, self._epoch)))
            with self.closing([members]):
                for self._position, member in islice(enumerate(members), start, None):
                    position, number = self._position, self._number
                    if members is given:
                        stream = self.open_stream(position, number)
                        for ahead in range(1, self._opener.ahead + 1):
                            if position + ahead < len(members) or self.mode == "cycle":
                                self.open_early((position + ahead) % len(members), number + ahead)
                    else:  # the next one is not known before it is asked for
                        state = self._resumed.pop((number,), None)
                        stream = self._open(as_streamer(member, position), number, state=state)
                    self._running_stream = stream
                    with self.closing([stream]):
                        if first := take_one(stream):
                            barren = False
                            yield first.pop()
                            yield from stream
                    self._number += 1
            if barren or self.mode == "exhaustive":
                return
            barren, start = True, 0

    def state(self) -> State:
        return {
            "epoch": self._epoch,
            "position": self._position,
            "number": self._number,
            "streams": self.stream_states([((self._number,), self._running_stream)]),
        }

    def last_stream(self) -> tuple[int, tuple[int, ...], Iterator[Any]]:
        return self._position, (self._number,), self._running_stream

    def _member(self, index: int) -> Streamer[T_co]:
        if isinstance(self.streamer, list):
            return super()._member(index)
        return as_streamer(self._local("member"), index)

    def __repr__(self) -> str:
        many = f"{len(self.streamer)} " if isinstance(self.streamer, list) else ""
        return f"<ChainMux of {many}streamers>"


class _Kept:
    """The streamers of a generator, which may be iterated over again, and by several threads at once.

    Each is taken from the generator when the first iteration comes to it, under a lock, and kept.
    """

    def __init__(self, generator: Iterator[Any]) -> None:
        self._generator = generator
        self._members: list[Any] = []
        self._error: BaseException | None = None
        # Reentrant, so that Python tells a generator that iterates over its own chain.
        self._taking = threading.RLock()

    def __iter__(self) -> Iterator[Any]:
        for position in count():
            if position == len(self._members) and not self._take(position):
                return
            yield self._members[position]

    def _take(self, position: int) -> bool:
        """Take the streamer of a position, if nobody did meanwhile; return whether there is one."""
        with self._taking:
            if position < len(self._members):
                return True
            if self._error is not None:  # its generator is over, but this is not the end of the streamers
                raise PescadorError(
                    f"the generator of this chain's streamers raised {type(self._error).__name__} after "
                    f"{position} of them, so what comes after them is not known"
                ) from self._error
            try:
                self._members.append(next(self._generator))
            except StopIteration:
                return False
            except BaseException as error:
                self._error = error
                raise
            return True

    def __reduce__(self) -> NoReturn:
        raise PescadorError(
            "a chain over a generator of streamers cannot be pickled, deep-copied or sent to a worker: an "
            "open generator has no recipe to start it again. Give the generator function, and its arguments "
            "in a Streamer: ChainMux(Streamer(parts, 4)), not ChainMux(parts(4)). With n_workers=2 or more, "
            "the chain stays in this process, and only its streams are sent"
        )


ATOMS.add(_Kept)  # all openings take from the same generator
