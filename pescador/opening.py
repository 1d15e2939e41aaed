"""What a stream is opened with.

Who opens a stream hands it a :class:`Context`: the seed of this activation, and the *opener* with which it
opens streams below it (in this process, or on the workers of a pool). That concerns authors of muxes and
backends; a generator function never sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from .seeding import Seed, SeedSource

if TYPE_CHECKING:  # which import this module
    from .backends.base import Pool, Stream
    from .core import Streamer

__all__ = ["HERE", "Context", "Openable", "Opener", "PoolOpener", "RepeatedContext"]

T = TypeVar("T")

# Items that a stream which is opened early may produce before it is needed: enough to draw from while its
# worker is busy opening another one.
EARLY_PREFETCH = 12


class Openable:
    """What can be opened with a context: the base of Streamer, for modules that Streamer imports."""

    _sources: tuple[SeedSource, ...] = ()
    """What counts its openings, here and below; an attribute of instances that have any."""
    _context: Context | None = None
    """What a copy is opened with; None in a recipe."""

    def _bind(self, context: Context) -> Any:
        """Return a copy that is opened with `context`."""
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

    def open(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        """Return an iterator over at most `max_iter` items of `streamer`, which has ``close()``."""
        return streamer.open(Context(seed, self), max_iter)

    def open_early(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        """Open a stream that will probably be needed: it may get ready, but produces next to nothing."""
        return self.open(streamer, seed, max_iter)

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

    def open(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        """Return an iterator over a stream, which on a worker produces up to `prefetch` items ahead."""
        if streamer.mixes:
            return super().open(streamer, seed, max_iter)
        return self._pool.open(streamer, seed, max_iter, self._prefetch)

    def open_early(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        """Open a stream that produces its first items, and then waits to be needed."""
        if streamer.mixes:
            return self.open(streamer, seed, max_iter)  # it opens nothing before it is drawn from
        return self._pool.open(
            streamer, seed, max_iter, min(EARLY_PREFETCH, self._prefetch or EARLY_PREFETCH)
        )

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

    __slots__ = ("_seeds",)

    def __init__(self, seeds: Iterator[Seed]) -> None:
        self._seeds = seeds
        self.opener = HERE

    def seed(self) -> Seed:
        """Return the seed of the next opening, another one each time."""
        return next(self._seeds)
