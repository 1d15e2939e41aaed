"""Calling a recipe's generator function, with arguments of this opening alone.

A recipe may be opened many times, also at once and on several threads. Each opening starts from the recipe as
it was given: what it does to its arguments reaches neither the caller's objects nor another opening. That
holds on every backend, because all of them open a stream by way of this module: in the process, and on the
thread, where its generator then runs. Before the generator function is called:

- Streams and :data:`pescador.RNG`, as arguments and one level inside a list, tuple or dict, get seeds of this
  opening.
- Anything else becomes what :mod:`pescador.isolation` makes of it. So does the object whose method or
  ``__call__`` is the generator function, and one that is iterated over.

What a function refers to in another way (globals, closure, defaults) is shared by all openings.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count, islice
from typing import Any, Final, TypeVar, cast

from . import seeding
from .checks import is_iterable
from .describe import shown
from .exceptions import ParameterError
from .isolation import ATOMS, Copies
from .opening import Context, Openable, RepeatedContext
from .seeding import RNG, Seed, SeedSource

__all__ = ["Undecorated", "call", "explain_read_only", "own_iterator", "seed_sources"]

T = TypeVar("T")

INHERITING: Final = (Openable, type(RNG))
"""Classes whose instances inherit a seed from the opening: all streams, and the marker RNG."""

READ_ONLY: Final = (
    "The arrays among the arguments of a Streamer are read-only, because its other openings share them; a "
    "generator that wants to change one makes a copy first"
)


def call(
    function: Callable[..., Iterable[T]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: Context,
    are_atoms: bool,
) -> Iterator[T]:
    """Call a generator function for one opening, and return its iterator.

    Parameters
    ----------
    function, args, kwargs
        Of the recipe.
    context : Context
        The streams among the arguments get their seeds from it.
    are_atoms : bool
        Whether it is known that the function and `args` can be passed as they are. Of keywords that is never
        known, for they are a dict, which may have been changed.
    """
    given: Any = function
    if isinstance(given, types.MethodType) and isinstance(given.__self__, Openable):
        # The method's first opening of its stream is that of the recipe, each further one has its own seed.
        seed = context.seed()
        seeds = chain([seed], map(partial(seed.child, seeding.OPENING), count(1)))
        given = types.MethodType(given.__func__, given.__self__._bind(RepeatedContext(seeds)))
    if not are_atoms or (kwargs and not ATOMS.issuperset(map(type, kwargs.values()))):
        if isinstance(given, partial):  # its arguments belong to the recipe, too
            given, args, kwargs = given.func, (*given.args, *args), {**given.keywords, **kwargs}
        bind = _Binding(context).bind
        given, args, kwargs = bind(given), tuple(map(bind, args)), {k: bind(v) for k, v in kwargs.items()}
    result = given(*args, **kwargs)
    if not is_iterable(result):
        raise ParameterError(
            f"{shown(function)} returned {shown(result)} of type {type(result).__name__}, "
            "which is not an iterator; is it a generator function (does it yield)?"
        )
    return iter(result)


def own_iterator(source: Iterable[T]) -> Iterator[T]:
    """Return the iterator of one opening of an iterable.

    If the class of `source` iterates in Python, it may keep a state, and what is iterated over is a copy. An
    iterator continues where it was left, and what is built in (a list, an array) is only read.
    """
    kind: Any = type(source)
    method = getattr(kind, "__iter__", None) or getattr(kind, "__getitem__", None)
    if type(method) is types.FunctionType and not isinstance(source, Iterator):
        source = Copies().own(source)
    stream = iter(source)
    # Only a generator that was made here may be closed at the end of the opening. An islice has no close(),
    # so any other iterator stays usable.
    ours = isinstance(stream, types.GeneratorType) and stream is not source
    return stream if ours else islice(stream, None)


def explain_read_only(error: ValueError) -> None:
    """Note why an array may be read-only, if that is what the error is about (from Python 3.11 on)."""
    notes = getattr(error, "__notes__", ())
    if "read-only" in str(error) and READ_ONLY not in notes and hasattr(error, "add_note"):
        error.add_note(READ_ONLY)


class Undecorated:
    """Calls the function that :func:`~pescador.streamable` decorates.

    A recipe cannot hold that function itself: in its module, the name by which a pickle refers to it stands
    for the decorated one, the factory.
    """

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.__qualname__ = factory.__qualname__  # for messages

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.factory.__wrapped__(*args, **kwargs)


ATOMS.add(Undecorated)  # nobody changes it


def seed_sources(values: Iterable[object]) -> tuple[SeedSource, ...]:
    """Return what counts the openings of the streams among arguments, and one level inside containers."""
    found: dict[SeedSource, None] = {}
    for value in values:
        kind = type(value)
        if kind in ATOMS:
            continue
        if isinstance(value, partial):
            found.update(dict.fromkeys(seed_sources([*value.args, *value.keywords.values()])))
        elif isinstance(value, Openable):
            found.update(dict.fromkeys(value._sources))
        elif kind in (list, tuple, dict):
            entries = value.values() if isinstance(value, dict) else cast("Iterable[object]", value)
            if _any_inherits(entries):
                for entry in entries:
                    if isinstance(entry, Openable) and entry._sources:
                        found.update(dict.fromkeys(entry._sources))
    return tuple(found)


class _Binding:
    """Makes the arguments of one opening.

    Streams and generators are numbered in the order in which they come, and the number is part of the seed.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seed: Seed | None = None  # taken when the first argument needs one
        self._generators, self._streams = count(), count()
        self._copies = Copies()

    def bind(self, value: Any) -> Any:
        """Return an argument as it is for this opening."""
        kind = type(value)
        if kind in ATOMS:
            return value
        # One level deep, and only if something in it inherits a seed, because the container is then a new one
        # wherever else it is an argument, too.
        if kind in (list, tuple) and _any_inherits(value):
            return kind([self._bind_entry(entry) for entry in value])
        if kind is dict and _any_inherits(value.values()):
            return {self._copies.own(key): self._bind_entry(entry) for key, entry in value.items()}
        return self._bind_entry(value)

    def _bind_entry(self, value: Any) -> object:
        if not isinstance(value, INHERITING):
            return self._copies.own(value)
        if self._seed is None:
            self._seed = self._context.seed()
        if isinstance(value, Openable):
            seed = self._seed.child(seeding.ARGUMENT, next(self._streams))
            return value._bind(RepeatedContext(map(seed.child, count())))
        return self._seed.child(seeding.GENERATOR, next(self._generators)).generator()


def _any_inherits(values: Iterable[object]) -> bool:
    """Whether any value inherits a seed. There may be millions, but only of a few types."""
    return any(issubclass(kind, INHERITING) for kind in set(map(type, values)) - ATOMS)
