"""shard: the part of one sequence for one of several training processes.

All processes (*ranks*) open one stream under one seed, so each knows the whole sequence, and nothing is sent
between them. A *round* is `world` items of the whole in a row: one for each rank, for one step of the
training.

A state says how many items a rank gave, and where the whole stands, which is between two rounds. So it is the
same on all ranks, and does not depend on their number. If another number of ranks goes on, rounds begin
there; item p is still that of rank p % world, and in each round each rank has one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any, TypeVar

from .checks import whole_number
from .core import Streamer
from .exceptions import DataError, ParameterError
from .fingerprint import Parts
from .iteration import saved
from .mux import BaseMux, RoundRobinMux
from .mux.base import check_mode, take_one
from .opening import State, at
from .origin import Below
from .seeding import RNG, Seed

__all__ = ["shard"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def shard(stream: Streamer[T] | Iterable[T], rank: int, world: int, by: str = "item") -> Streamer[T]:
    """Return the part of a stream that one of several training processes takes.

    Item p of the stream is item p // world of rank p % world. So all ranks together train on the same items
    in the same order, however many they are.

    Parameters
    ----------
    stream : Streamer or iterable
        Made in the same way on all ranks, with the same `random_state`.
    rank, world : int
        Number of this process, from 0, and how many processes there are.
    by : {'item', 'stream'}
        With 'item', each rank makes all items, and drops those of the others. With 'stream', it makes only
        its own: `stream` is a RoundRobinMux of endless streams, whose number is a multiple of `world`, and
        each rank runs its share of them, under the seeds that they have in the whole.

    Returns
    -------
    part : Streamer
        A ParallelStreamer may be made of it, and with 'item' also be what is shared.

    Raises
    ------
    PescadorError
        If `world` is above 1 and something is drawn with no `random_state` above it, for then ranks would
        differ; or if a parameter cannot work. While iterating, with 'stream': DataError if a stream ends.

    Notes
    -----
    All ranks get equally many items: the last of an epoch, if they are too few for all ranks, are dropped. To
    lose none, share a stream that goes on: ``shard(Streamer(stream.cycle), rank, world)``.

    A state of any rank is one for all ranks, and for any number of them: the whole goes on after the items
    that the ranks had. A `max_iter`, and the length of :class:`pescador.Epochs`, count the items of one rank.
    If the number may change, do not batch what shard returns, but share batches. With 'stream', a state says
    little of the streams of other ranks, which make again what those have given.

    Do not give each rank some of the files (``files[rank::world]``): what is drawn then depends on `world`,
    and no batch of a training on one rank is one of that on two. Nor give all ranks the whole stream under
    the same seed: all then train on the same items.

    Examples
    --------
    >>> import pescador
    >>> mux = pescador.StochasticMux(['abcdef', 'uvwxyz'], 2, None, mode='exhaustive', random_state=0)
    >>> ''.join(mux)
    'aubvwcxdyefz'
    >>> [''.join(pescador.shard(mux, rank, 3)) for rank in range(3)]
    ['avxe', 'uwdf', 'bcyz']
    """
    world, rank = whole_number(world, "world", 1), whole_number(rank, "rank", 0)
    if rank >= world:
        raise ParameterError(f"rank is one of 0 to world - 1, got rank={rank}, world={world}")
    check_mode(by, ("item", "stream"), "by")
    whole = stream if isinstance(stream, Streamer) else Streamer(stream)
    if world > 1:
        _check_seeded(whole)
    return ItemShare(whole, rank, world) if by == "item" else StreamShare(whole, rank, world)


def _check_seeded(stream: Any) -> None:
    """Raise ParameterError if ranks would draw different numbers in a tree of streams."""
    while stream._is_transparent:
        stream = stream.streamer
    parts = stream._parts()
    if parts.seed is not None:  # which governs all that is below
        return
    seedless = "has no random_state, so each rank would draw other items"
    if isinstance(stream, BaseMux):
        raise ParameterError(f"{stream!r} {seedless}: give it a whole number, the same on all ranks")
    if _takes_rng(stream.streamer, stream.args, stream.kwargs):
        raise ParameterError(
            f"{stream!r} takes pescador.RNG, and {seedless}: put it into a mux that has one, as in "
            "ChainMux([stream], random_state=0)"
        )
    for member in parts.members:
        _check_seeded(member)


def _takes_rng(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the marker RNG is among the arguments of a recipe, where an opening replaces it."""
    values = [*args, *kwargs.values()]
    if isinstance(function, partial):
        values += [*function.args, *function.keywords.values()]
    for value in list(values):
        if type(value) in (list, tuple, dict):
            values += value.values() if type(value) is dict else value
    return any(value is RNG for value in values)


class ItemShare(Streamer[T_co]):
    """Part of any stream: the whole is opened here, and one item of each round is passed on."""

    def __init__(self, whole: Streamer[T_co], rank: int, world: int) -> None:
        super().__init__(whole)
        self.rank, self.world = rank, world

    def _counting(self, stream: Iterator[T_co], n: int) -> Iterator[T_co]:
        whole = self._state and self._state.get("source")
        n_before = whole["n"] if whole else 0
        return super()._counting(_one_a_round(stream, self._turn(n_before), self.world), n)

    def _turn(self, n: int) -> int:
        """Return which one this rank takes, after n items of the whole, of the next `world`."""
        return (self.rank - n) % self.world

    def _parts(self) -> Parts:
        return super()._parts()._replace(what=lambda: ["shard"])  # on all ranks

    def _since(self, snapshot: State | None, n: int) -> State:
        state = super()._since(snapshot, n)
        whole = state.get("source", {"n": 0})
        later = (n - state.get("at", 0)) * self.world  # counted here, where the number of ranks is known
        return {"n": n, "source": {**whole, "at": whole[at(whole)], "n": whole["n"] + later}}

    def _below(self, seed: Seed) -> Below | None:
        # The whole is at the end of the round. It is opened once more where it gave the item of this rank.
        whole = saved(self.stream_)
        if whole is None:
            return None
        start = whole["n"] - self.world
        n = start + self._turn(start) + 1
        return Below(SimpleNamespace(save=lambda: {"n": n}), self.streamer, seed)

    def close(self) -> None:
        """End the workers of a ParallelStreamer that was given."""
        if hasattr(self.streamer, "close"):
            self.streamer.close()

    def __repr__(self) -> str:
        return f"shard({self.streamer!r}, {self.rank}, {self.world})"


def _one_a_round(stream: Iterator[T], turn: int, world: int) -> Iterator[T]:
    """Yield one item of each whole round; the others are dropped one by one."""
    others = world - 1 - turn
    while True:
        deque(islice(stream, turn), maxlen=0)
        taken = take_one(stream)
        if not taken or sum(1 for _ in islice(stream, others)) < others:
            return
        yield taken.pop()


class StreamShare(RoundRobinMux[T_co]):
    """Part of a RoundRobinMux: it runs the streams whose turns are those of its rank, under their seeds."""

    def __init__(self, whole: Streamer[T_co], rank: int, world: int) -> None:
        if type(whole) is not RoundRobinMux or whole.n_streams % world:
            raise ParameterError(
                f"by='stream' takes a RoundRobinMux of endless streams, a multiple of {world} of them, not "
                f"{whole!r}. by='item' takes any stream"
            )
        super().__init__(whole.streamers, whole.mode)
        self._seed_source, self._sources = whole._seed_source, whole._sources
        self.rank, self.world = rank, world

    def _cycle_through(self, order: Sequence[int], resumed: State) -> Iterator[T_co]:
        self._start = start = resumed.get("position", 0)  # in items of the whole
        own = order[self.rank :: self.world]
        states, self._resumed = self._resumed, {}
        for turn, index in enumerate(own):
            # A state knows less of streams of other ranks, or of what a worker gave: that is made again.
            n_given = -((self.rank + turn * self.world - start) // self.n_streams)
            state = states.get(key := (index, self._epoch), {"n": 0})
            if state["n"] != n_given:
                state = {**state, "at": state[at(state)], "n": n_given}
            self._resumed[key] = state
        first = start + (self.rank - start) % self.world
        return super()._cycle_through(own, {**resumed, "next": order[first % self.n_streams]})

    def _leave_out(self, index: int) -> None:
        raise DataError(
            f"stream {index} of {self!r} has ended. With by='stream' all have to be endless, because a rank "
            "does not know when those of others end: use Streamer(stream, cycle=True), or by='item'"
        )

    def state(self) -> State:
        position = self._start + (self.n_given - self._n_before) * self.world
        return {**super().state(), "position": position}

    def _since(self, snapshot: State | None, n: int) -> State:
        state = super()._since(snapshot, n)
        begun: State = {"epoch": 0, "permutation": None, "ended": [], "position": 0}
        mux = state.get("source", begun)
        later = (n - state.get("at", 0)) * self.world
        return {"n": n, "source": {**mux, "position": mux["position"] + later}}

    @property
    def _n_at_a_time(self) -> int:
        return self.n_streams // self.world

    def __repr__(self) -> str:
        whole = f"<RoundRobinMux of {self.n_streams} streamers>"
        return f"shard({whole}, {self.rank}, {self.world}, by='stream')"
