"""What a stream is opened with.

Who opens a stream hands it a :class:`Context`: the seed of this activation, and the *opener* with which it
opens streams below it (in this process, or on the workers of a pool). That concerns authors of muxes and
backends; a generator function never sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .seeding import OPENING, Seed, SeedSource

if TYPE_CHECKING:
    from .core import Streamer  # which imports this module

__all__ = ["HERE", "ArgumentContext", "Context", "MethodContext", "Openable", "Opener"]

T = TypeVar("T")


class Openable:
    """What can be opened with a context: the base of Streamer, for modules that Streamer stands on."""

    _sources: tuple[SeedSource, ...] = ()
    """What counts its openings, here and below; an attribute of instances that have any."""

    def _bind(self, context: Context) -> Any:
        """Return a copy that is opened with `context`."""
        raise NotImplementedError


class Opener(Protocol):
    """Opens streams for the mux that asks, here or elsewhere."""

    def open(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        """Return an iterator over at most `max_iter` items of `streamer`.

        The iterator has ``close()``.
        """
        ...

    def open_early(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        """Open a stream that will probably be needed: it may get ready, but produces next to nothing."""
        ...

    def claim(self, streamer: Streamer[T], stream: Iterator[T]) -> None:
        """Let a stream of `streamer` that was opened early produce as much as any."""
        ...

    def spread(self, n: int) -> Opener:
        """Return the opener for a mux that has `n` streams open at a time, below the one that asks."""
        ...

    @property
    def is_background(self) -> bool:
        """Whether streams run in the background as soon as they are opened."""
        ...

    @property
    def ahead(self) -> int:
        """How many activations a mux may open before it needs them."""
        ...


class _HereOpener:
    """Opens streams in this process, when they are needed."""

    __slots__ = ()
    is_background = False
    ahead = 0

    def open(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        return streamer.open(Context(seed, self), max_iter)

    def open_early(self, streamer: Streamer[T], seed: Seed, max_iter: int | None) -> Iterator[T]:
        return self.open(streamer, seed, max_iter)

    def claim(self, streamer: Streamer[T], stream: Iterator[T]) -> None:
        pass

    def spread(self, n: int) -> Opener:  # noqa: ARG002  # it is all the same here
        return self


HERE: Opener = _HereOpener()


class Context:
    """What a stream is opened with: its seed, and the opener for streams below it."""

    __slots__ = ("_seed", "opener")

    def __init__(self, seed: Seed, opener: Opener = HERE) -> None:
        self._seed = seed
        self.opener = opener

    def seed(self) -> Seed:
        """Return the seed of the next opening."""
        return self._seed


class ArgumentContext(Context):
    """For a stream among a recipe's arguments, which may be opened many times."""

    __slots__ = ("_openings",)

    def __init__(self, seed: Seed) -> None:
        super().__init__(seed)
        self._openings = count()

    def seed(self) -> Seed:
        """Return the seed of the next opening, another one each time."""
        return self._seed.child(next(self._openings))


class MethodContext(Context):
    """For a stream whose method is the generator function of a recipe, as in ``Streamer(mux.cycle)``.

    Its first opening is that of the recipe; if the method opens the stream again, that has a seed of its own.
    """

    __slots__ = ("_openings",)

    def __init__(self, seed: Seed) -> None:
        super().__init__(seed)
        self._openings = count()

    def seed(self) -> Seed:
        """Return the seed of the next opening, another one each time."""
        opening = next(self._openings)
        return self._seed.child(OPENING, opening) if opening else self._seed
