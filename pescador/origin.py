"""Origins: where an item came from, and the same item again.

Nothing is noted while items are made. Who asks for the origin of the last item walks down the streams that
are open: a Streamer of a Streamer has one stream below it, and a mux knows where it stands, and so from which
of its streams the last item came. The way ends at a *leaf*, which made the item: a Streamer of a generator
function or iterable, or a mux that does not say more, see :meth:`pescador.BaseMux.last_stream`. A map is a
leaf, too, as its items are made of several.

What runs on a worker cannot be asked, but the consumer knows how many items came from there. For a leaf that
is enough. A mux is opened here where it stood one item earlier, gives that item once more, and is asked
then. A ParallelStreamer leaves no trace in an origin, as it leaves none in a state.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .exceptions import PescadorError
from .iteration import Items, activated
from .opening import Context, Opener, State
from .opening import at as at_entry
from .seeding import Seed

if TYPE_CHECKING:  # which import this module
    from .core import Streamer

__all__ = ["Below", "Origin", "Step", "origin_of", "replay"]

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One stream on the way to an item.

    Attributes
    ----------
    name : str
        What the stream is.
    index : int or None
        Which of the streams it is that the mux before it mixes; None if there is no mux before it.
    activation : tuple of int
        Which of the activations of that mux it is: their number for StochasticMux and ChainMux; index and
        number of the opening or cycle for ShuffledMux and RoundRobinMux.
    epoch : int
        Which epoch of its ``cycle()`` it is, from 0.
    """

    name: str
    index: int | None = None
    activation: tuple[int, ...] = ()
    epoch: int = 0

    def __str__(self) -> str:
        numbers = [] if self.index is None else [f"stream {self.index}"]
        if self.activation:
            one, *more = self.activation
            numbers.append(f"activation {self.activation if more else one}")
        if self.epoch:
            numbers.append(f"epoch {self.epoch}")
        return f"{', '.join(numbers)}: {self.name}" if numbers else self.name


@dataclass(frozen=True, eq=False)
class Origin:
    """Where an item came from; as a text, it is for people, and can be pickled for :func:`pescador.replay`.

    Attributes
    ----------
    way : tuple of Step
        The streams through which the item passed, from the one that was iterated over to the one that made
        it.
    item : int
        Its number among the items of that last one since it was opened, from 0.
    seed : Seed
        Entropy and path of the seed with which that one was opened.
    stream : Streamer
        The recipe of that one.
    """

    way: tuple[Step, ...]
    item: int
    seed: Seed
    stream: Streamer[Any] = field(repr=False)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.way), f"item {self.item}, under {self.seed}"])


@dataclass(frozen=True)
class Below:
    """An open stream from which an item came: iterator, recipe, and the seed with which it was opened.

    Items know their seed and epoch themselves. The others are as in :class:`Step`.
    """

    iterator: Any
    streamer: Any
    seed: Seed
    index: int | None = None
    activation: tuple[int, ...] = ()
    epoch: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether the iterator can be asked, which the author of a new type of stream may have wrapped."""
        return hasattr(self.iterator, "save") or activated(self.iterator) is not None


def origin_of(items: Items[Any], stream: Any) -> Origin:
    """Return the origin of the last item of an iterator over a stream, which stands between two items."""
    way: list[Step] = []
    at = Below(items, stream, Seed())
    with ExitStack() as opened:
        while True:
            if isinstance(at.iterator, Items):
                place = at.iterator._place
                at = replace(at, seed=place.opened_with(), epoch=place.epoch)
            active = activated(at.iterator)
            if active is None or not active._is_transparent:  # what is opened again is what was produced
                at = replace(at, streamer=_produced(at.streamer))
            if active is None:
                state = _one_item_earlier(at.iterator)
                if at.streamer._passes_on:
                    again = opened.enter_context(closing(_opened_again(at.streamer, at.seed, state)))
                    _take(again, at.streamer, state["n"])
                    active = activated(again)
            below = None if active is None else active._below(at.seed)
            if not at.streamer._is_transparent:
                way.append(Step(repr(at.streamer), at.index, at.activation, at.epoch))
            elif below is not None:
                below = replace(below, index=at.index, activation=at.activation, epoch=at.epoch)
            if below is None or not below.is_ours:
                item = state["n"] if active is None else active.n_given - 1
                at.seed.settled()
                return Origin(tuple(way), item, at.seed, at.streamer)
            at = below


def replay(origin: Origin) -> Any:
    """Return once more the item of which this is the origin.

    The stream that made it is opened again under its seed, and its items before that one are dropped; if it
    takes :data:`pescador.START`, it begins with that one. It has to give the same items for the same seed.

    Parameters
    ----------
    origin : Origin
        What ``origin()`` of an iterator returned, in this process or another.

    Returns
    -------
    item
        Equal to the one that was delivered.

    Raises
    ------
    PescadorError
        If the stream reads from an open iterator, or ends before that item now.

    Examples
    --------
    >>> import pescador
    >>> def noise(rng):
    ...     while True:
    ...         yield rng.integers(100)
    >>> mux = pescador.ShuffledMux([pescador.Streamer(noise, pescador.RNG)] * 3, random_state=0)
    >>> items = mux.cycle()
    >>> all(pescador.replay(items.origin()) == item for item, _ in zip(items, range(10)))
    True
    """
    state: State = {"n": origin.item}
    with closing(_opened_again(origin.stream, origin.seed, state)) as items:
        return _take(items, origin.stream, origin.item)


class _Again(Opener):
    """Opens streams here, also what a ParallelStreamer produces, but none of an iterator that is used up."""

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Generator[T, None, None]:
        streamer = _produced(streamer)
        streamer.check_restartable()
        return streamer.open(Context(seed, self), max_iter, state)


def _opened_again(streamer: Streamer[T], seed: Seed, state: State) -> Generator[T, None, None]:
    return _Again().open(streamer, seed, None, state)


def _produced(streamer: Any) -> Any:
    """Return what a ParallelStreamer produces; any other stream as it is."""
    while streamer._is_transparent:
        streamer = streamer.streamer
    return streamer


def _one_item_earlier(stream: Any) -> State:
    """Return where a stream of a pool stood before its last item."""
    state = stream.save()
    if state is None:
        raise PescadorError("the stream of the last item was closed, so its origin is not known any more")
    n = state["n"] - 1
    # What is known of its source may be of later, unless it says of when.
    return {**state, "n": n} if state[at_entry(state)] <= n else {"n": n}


def _take(items: Iterator[T], streamer: Streamer[T], n: int) -> T:
    """Return the next item of a stream that was opened again, after n items."""
    for item in items:
        return item
    raise PescadorError(
        f"{streamer!r} was opened again under its seed, and ends after {n} items now, although it had given "
        "more: does what it reads differ, or does it draw from a generator without a seed?"
    )
