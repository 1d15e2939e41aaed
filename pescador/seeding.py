"""Seeds of activations.

One seed at the root of a tree of streams fixes everything drawn under it. A :class:`Seed` is an
address in that tree: the root's *entropy* and the *path* of whole numbers that leads from the root
to one activation. It is worth a :class:`numpy.random.SeedSequence` with that entropy and spawn key,
and costs a tuple until somebody asks for random numbers::

    mux, random_state=7             Seed(7, ())
      its draws                     Seed(7, (DRAWS,))
      its 12th activation           Seed(7, (STREAM, 12))
        a mux among the arguments   Seed(7, (STREAM, 12, ARGUMENT, 0, 0))

A seed therefore depends on what is opened, and on nothing else: neither on timing, nor on the data, nor
on the process in which the stream runs.
"""

from __future__ import annotations

import copy
import functools
import operator
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from .exceptions import ParameterError

__all__ = ["RNG", "RandomState", "Seed", "SeedSource", "generator_state", "lock", "restore_generator"]

RandomState: TypeAlias = "int | np.random.SeedSequence | np.random.Generator | np.random.RandomState | None"
"""What a parameter called ``random_state`` takes."""

# The first number of each step of a path. Values are part of the sequences users see: never renumber.
DRAWS: Final = 0  # which active stream gives the next sample
ACTIVATIONS: Final = 1  # which streams open, in which order
BUDGETS: Final = 2  # how many samples each of them gives
STREAM: Final = 3  # (STREAM, k): the k-th activation
ARGUMENT: Final = 4  # (ARGUMENT, i, n): the n-th opening of the i-th stream among a recipe's arguments
GENERATOR: Final = 5  # (GENERATOR, i): the i-th RNG marker among a recipe's arguments
EPOCH: Final = 6  # (EPOCH, e): all epochs of cycle() but the first
OPENING: Final = 7  # (OPENING, n): the n-th opening of a tree, for a mux in it seeded by a generator object
WORKER: Final = 8  # (WORKER, w): the global state of a worker process
FIRST: Final = 9  # the first working set of a mux


lock: Final = threading.RLock()
"""Held while entropy is drawn, openings are counted, or what openings share is made.

Reentrant, because a signal handler, or a finalizer, may open or close streams.
"""


@functools.cache
def _numpys_lock() -> Any:
    """Return the lock of the state behind ``np.random``, which NumPy imports when it is asked for."""
    return np.random.mtrand._rand._bit_generator.lock  # type: ignore[attr-defined]  # hidden from stubs


def _hold_at_fork() -> None:
    """Have no lock held by a thread that a forked child does not have: ours, and that of ``np.random``."""
    # Those registered last are taken first: ours, because who holds it may draw. NumPy's is looked up, which
    # waits for another thread that imports it: in the child, that import would never come to its end.
    for held in (_numpys_lock, lambda: lock):
        os.register_at_fork(
            before=lambda held=held: held().acquire(),
            after_in_parent=lambda held=held: held().release(),
            after_in_child=lambda held=held: held().release(),
        )


if hasattr(os, "register_at_fork"):
    _hold_at_fork()


class _Root:
    """What all seeds of a tree have in common.

    Its entropy, which is taken from NumPy's global state when first needed; and for each source of seeds in
    the tree that counts openings, the number of this one.
    """

    __slots__ = ("_words", "numbers")

    def __init__(
        self, words: int | Sequence[int] | None = None, numbers: Mapping[int, int] | None = None
    ) -> None:
        self._words = words
        self.numbers = numbers

    @property
    def words(self) -> int | Sequence[int]:
        if self._words is None:
            self._draw(np.random.randint)
        return self._words  # type: ignore[return-value]  # drawn just now

    def settled(self) -> int | Sequence[int]:
        """Return the entropy; if it was not drawn yet, it is now, but the global state stays as it is."""
        if self._words is None:
            state = np.random.RandomState()
            state.set_state(np.random.get_state())  # noqa: NPY002  # it is about the global one
            self._draw(state.randint)
        return self._words  # type: ignore[return-value]  # drawn just now

    def _draw(self, integers: Callable[..., Any]) -> None:
        with lock:  # streams of one tree may run on several threads
            if self._words is None:
                self._words = _draw_words(integers)


class Seed:
    """Address of one activation in a tree of streams.

    Parameters
    ----------
    entropy : int, sequence of int, or None
        What the tree grows from. None takes 128 bits from NumPy's global state, not before they are
        needed: a tree that draws nothing leaves the global state alone.
    path : tuple of int
        Spawn key below that entropy.
    numbers : mapping, optional
        Of the root of a tree, the numbers of this opening, by the key of the source that counts.
    """

    __slots__ = ("_root", "path")

    def __init__(
        self,
        entropy: int | Sequence[int] | _Root | None = None,
        path: tuple[int, ...] = (),
        numbers: Mapping[int, int] | None = None,
    ) -> None:
        self._root = entropy if isinstance(entropy, _Root) else _Root(entropy, numbers)
        self.path = path

    @classmethod
    def of_opening(cls, sources: Iterable[SeedSource]) -> Seed:
        """Return the seed of an opening at the root of a tree, and count it for sources in the tree."""
        with lock:  # so that all numbers are of one opening
            return cls(_Root(None, {source.key: source.count() for source in sources} or None))

    @property
    def entropy(self) -> int | Sequence[int]:
        """The words the tree grows from (drawn now if they were not yet)."""
        return self._root.words

    def settled(self) -> Any:
        """Return the entropy, of what JSON knows; drawn now if it was not, but nobody else notices."""
        words = self._root.settled()
        return [_for_json(word) for word in words] if isinstance(words, Iterable) else _for_json(words)

    @classmethod
    def restored(cls, entropy: Any, path: Iterable[int], numbers: Mapping[int, int]) -> Seed:
        """Return a seed of which the entropy is from :meth:`settled`."""
        words = [_from_json(word) for word in entropy] if isinstance(entropy, list) else _from_json(entropy)
        return cls(_Root(words, numbers or None), tuple(path))

    @property
    def numbers(self) -> Mapping[int, int] | None:
        """Numbers of this opening of the tree, by the key of the source that counts."""
        return self._root.numbers

    @property
    def root(self) -> Seed:
        """The seed of the opening of the whole tree."""
        return Seed(self._root)

    def child(self, *key: int) -> Seed:
        """Return the seed at `key` below this one."""
        return Seed(self._root, self.path + key)

    def generator(self) -> np.random.Generator:
        """Return a fresh generator; every call gives the same sequence."""
        sequence = np.random.SeedSequence(self.entropy, spawn_key=self.path)
        return np.random.Generator(np.random.PCG64(sequence))

    def __reduce__(self) -> tuple[type[Seed], tuple[Any, ...]]:
        return Seed, (self.entropy, self.path, self.numbers)

    def __repr__(self) -> str:
        return f"Seed({self._root._words}, {self.path})"


class SeedSource:
    """What a mux was told about its randomness, and the seed that follows for each opening.

    An int or a SeedSequence gives every opening at the root of a tree the same seed. A Generator or
    RandomState is asked once, now, and each opening of the tree gets the next seed. Opened by
    another mux, either keeps its own entropy and takes the path of the activation. Without a
    `random_state` the opening's own seed is used, entropy and all.

    Openings are counted where the tree is opened, that is in the consumer, and their number travels with
    the seed. So it does not matter in which process a mux runs, nor how long that process lives. Copies share
    the count; a deep copy, or one from a pickle, begins where the original was.
    """

    __slots__ = ("_entropy", "_openings", "_path", "key")

    def __init__(self, random_state: RandomState = None) -> None:
        self._entropy: int | Sequence[int] | None = None
        self._path: tuple[int, ...] = ()
        self._openings: int | None = None
        self.key = 0
        if random_state is None:
            return
        try:  # first, for a program with whole numbers alone does without numpy.random until it draws
            self._entropy = operator.index(random_state)  # type: ignore[arg-type]  # that is the question
        except TypeError:
            self._ask(random_state)
        if isinstance(self._entropy, int) and self._entropy < 0:
            raise ParameterError(f"random_state must not be negative, got {random_state!r}")

    def _ask(self, random_state: RandomState) -> None:
        """Take what a seed sequence or a generator says."""
        if isinstance(random_state, np.random.SeedSequence):
            self._entropy = random_state.entropy  # type: ignore[assignment]  # the stub says None, too
            self._path = tuple(random_state.spawn_key)
        elif isinstance(random_state, np.random.Generator | np.random.RandomState):
            self._entropy = _draw_words(
                random_state.integers
                if isinstance(random_state, np.random.Generator)
                else random_state.randint
            )
            self._openings = 0
            self._make_key()
        else:
            raise ParameterError(
                "random_state must be None, a whole number, a numpy SeedSequence, Generator or "
                f"RandomState, not {random_state!r} ({type(random_state).__name__})"
            )

    def _make_key(self) -> None:
        # Random, because two muxes whose generators were made from one seed have the same entropy.
        self.key = int.from_bytes(os.urandom(8), "little")

    @property
    def counts(self) -> bool:
        """Whether each opening gets a seed of its own."""
        return self._openings is not None

    @property
    def number(self) -> int:
        """The number of the next opening, if openings are counted."""
        return self._openings or 0

    @number.setter
    def number(self, number: int) -> None:
        with lock:
            self._openings = number

    @property
    def own(self) -> list[Any] | None:
        """What tells this source from others, of what JSON knows; None if the seed is the opener's."""
        if self._entropy is None:
            return None
        return [Seed(self._entropy).settled(), list(map(int, self._path)), self.counts]

    def count(self) -> int:
        """Return the number of an opening that begins now."""
        with lock:
            assert self._openings is not None
            number = self._openings
            self._openings = number + 1
        return number

    def resolve(self, inherited: Seed) -> Seed:
        """Return the seed of an opening to which its opener gave the seed `inherited`."""
        if self._entropy is None:
            return inherited
        path = self._path
        if self.counts:
            number = (inherited.numbers or {}).get(self.key)
            if number is None and inherited.path[:1] in ((), (EPOCH,)):
                number = self.count()  # this mux is the root, and who opened it does not count
            if number is not None:
                path += (OPENING, number)
        return Seed(_Root(self._entropy, inherited.numbers), path + inherited.path)

    def __deepcopy__(self, memo: dict[int, Any]) -> SeedSource:
        duplicate = copy.copy(self)
        if duplicate.counts:
            duplicate._make_key()
        return duplicate


class _Marker:
    """Stands in a recipe for a :class:`numpy.random.Generator` of the activation's own seed.

    Examples
    --------
    >>> import pescador
    >>> def noise(n, rng):
    ...     for _ in range(n):
    ...         yield rng.integers(100)
    >>> stream = pescador.Streamer(noise, 3, rng=pescador.RNG)
    >>> mux = pescador.ChainMux([stream, stream], random_state=0)
    >>> list(mux) == list(mux)
    True
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "pescador.RNG"

    def __reduce__(self) -> str:
        return "RNG"


RNG: Final = _Marker()


def generator_state(rng: np.random.Generator) -> list[Any]:
    """Return where a generator of :meth:`Seed.generator` stands, of what JSON knows."""
    state: Any = rng.bit_generator.state
    return [hex(state["state"]["state"]), state["has_uint32"], state["uinteger"]]


def restore_generator(rng: np.random.Generator, saved: Sequence[Any]) -> None:
    """Let a generator of the same seed go on from :func:`generator_state`."""
    state: Any = rng.bit_generator.state
    state["state"]["state"] = int(saved[0], 16)
    rng.bit_generator.state = {**state, "has_uint32": saved[1], "uinteger": saved[2]}


def _for_json(number: int) -> int | str:
    """Return a whole number as it is, or as a text if JSON would lose some of it."""
    return int(number) if number < 2**53 else hex(number)


def _from_json(number: int | str) -> int:
    return number if isinstance(number, int) else int(number, 16)


def _draw_words(integers: Callable[..., Any]) -> list[int]:
    """Return 128 bits of entropy, given a generator's method that draws whole numbers."""
    return [int(word) for word in integers(0, 2**32, size=4, dtype=np.uint32)]
