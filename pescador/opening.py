"""What a stream is opened with.

Who opens a stream hands it a :class:`Context`: the seed of this activation, and the *opener* with which it
opens streams below it (in this process, or on the workers of a pool). That concerns authors of muxes and
backends; a generator function never sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from .seeding import Seed, SeedSource

if TYPE_CHECKING:  # which import this module
    from .backends.base import Pool, Stream
    from .core import Streamer

__all__ = [
    "HERE",
    "START",
    "Context",
    "Loaded",
    "Openable",
    "Opener",
    "PoolOpener",
    "RepeatedContext",
    "State",
]

T = TypeVar("T")

# Items that a stream which is opened early may produce before it is needed: enough to draw from while its
# worker is busy opening another one.
EARLY_PREFETCH = 12


State = dict[str, Any]
"""Where a stream stands, of what JSON knows: ``n``, the items that it gave since it was opened; and

``source``
    What its source needs to go on from there, if that is known. Else it is opened anew, and gives n items
    that are dropped.
``at``
    How many items it had given when its source stood there, if those are less than n.
``epoch``, ``before``
    Of a cycle: the number of this epoch, and the items of those before it.
"""


class Loaded(NamedTuple):
    """Where the next iteration over a stream begins."""

    state: State | None
    """None: at its end."""
    seed: Seed | None = None
    """Of the root of the tree; None in a stream among the arguments of another, which has its context."""


class _Start:
    """Stands in a recipe for the number of items that the stream has given before this opening.

    It is 0, unless the stream goes on from a state. A generator function that takes it begins with the item
    of that number, by which it saves the time to make those before it again. What it draws at random, it must
    draw by that number, too.

    Examples
    --------
    >>> import pescador
    >>> def lines(path_or_list, start):
    ...     for number in range(start, len(path_or_list)):
    ...         yield path_or_list[number]
    >>> stream = pescador.Streamer(lines, ["a", "b", "c"], pescador.START)
    >>> items = iter(stream)
    >>> next(items)
    'a'
    >>> stream.load_state_dict(items.state_dict())
    >>> list(stream)
    ['b', 'c']
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "pescador.START"

    def __reduce__(self) -> str:
        return "START"


START: Final = _Start()


class Openable:
    """What can be opened with a context: the base of Streamer, for modules that Streamer imports."""

    _sources: tuple[SeedSource, ...] = ()
    """What counts its openings, here and below; an attribute of instances that have any."""
    _context: Context | None = None
    """What a copy is opened with; None in a recipe."""

    def _bind(self, context: Context, state: State | None = None) -> Any:
        """Return a copy that is opened with `context`, to go on from `state`."""
        raise NotImplementedError

    def _next_context(self) -> Context:
        """Return what is opened next: with the context of a copy, or of a recipe as the root of a tree."""
        return self._context or Context(Seed.of_opening(self._sources) if self._sources else Seed())


class Opener:
    """Opens streams for the mux that asks: in this process, when they are needed.

    Subclasses open them elsewhere. All methods are called on the thread that iterates over the mux.
    """

    is_background = False
    """Whether streams run in the background as soon as they are opened."""
    ahead = 0
    """How many activations a mux may open before it needs them."""

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Iterator[T]:
        """Return an iterator over `streamer`, which has ``close()``.

        It gives at most `max_iter` items, counted from where the stream began, and goes on from `state`.
        """
        return streamer.open(Context(seed, self), max_iter, state)

    def open_early(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Iterator[T]:
        """Open a stream that will probably be needed: it may get ready, but produces next to nothing."""
        return self.open(streamer, seed, max_iter, state)

    def claim(self, streamer: Streamer[T], stream: Iterator[T]) -> None:
        """Let a stream of `streamer` that was opened early produce as much as any."""

    def spread(self, n: int) -> Opener:  # noqa: ARG002  # nothing is prefetched here that streams would share
        """Return the opener for a mux that has `n` streams open at a time, below the one that asks."""
        return self


HERE: Final = Opener()


class PoolOpener(Opener):
    """Opens the plain streams of a tree on the workers of a pool, and its muxes here, with itself."""

    is_background = True

    def __init__(self, pool: Pool, prefetch: int | None, ahead: int) -> None:
        self._pool = pool
        self._prefetch = prefetch
        self.ahead = ahead

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Iterator[T]:
        """Return an iterator over a stream, which on a worker produces up to `prefetch` items ahead."""
        if streamer.mixes:
            return super().open(streamer, seed, max_iter, state)
        return self._pool.open(streamer, seed, max_iter, self._prefetch, state)

    def open_early(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Iterator[T]:
        """Open a stream that produces its first items, and then waits to be needed."""
        if streamer.mixes:
            return self.open(streamer, seed, max_iter, state)  # it opens nothing before it is drawn from
        prefetch = min(EARLY_PREFETCH, self._prefetch or EARLY_PREFETCH)
        return self._pool.open(streamer, seed, max_iter, prefetch, state)

    def claim(self, streamer: Streamer[T], stream: Iterator[T]) -> None:
        """Let a stream that was opened early run ahead as far as any."""
        if not streamer.mixes:
            cast("Stream[T]", stream).allow(self._prefetch)

    def spread(self, n: int) -> PoolOpener:
        """Return the opener of a mux with `n` streams, which share what may be prefetched."""
        prefetch = None if self._prefetch is None else max(1, self._prefetch // n)
        return PoolOpener(self._pool, prefetch, self.ahead)


class Context:
    """What a stream is opened with: its seed, and the opener for streams below it."""

    __slots__ = ("_seed", "opener")

    def __init__(self, seed: Seed, opener: Opener = HERE) -> None:
        self._seed = seed
        self.opener = opener

    def seed(self) -> Seed:
        """Return the seed of the next opening."""
        return self._seed


class RepeatedContext(Context):
    """For a stream that the generator function of a recipe may open many times, each time with another seed.

    It is one among the function's arguments, or the one whose method the function is, as in
    ``Streamer(mux.cycle)``.
    """

    __slots__ = ("_seed_of", "number")

    def __init__(self, seed_of: Callable[[int], Seed], number: int = 0) -> None:
        self._seed_of = seed_of
        self.number = number  # of the next opening
        self.opener = HERE

    def seed(self) -> Seed:
        """Return the seed of the next opening, another one each time."""
        number = self.number
        self.number = number + 1
        return self._seed_of(number)
