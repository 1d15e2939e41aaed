"""A recipe's arguments, as one opening gets them.

A recipe may be opened many times, also at once and on several threads. Each opening starts from the recipe as
it was given: what it does to its arguments reaches neither the caller's objects nor another opening, on every
backend, for this is where all of them open a stream. Before the generator function is called:

- Streams and :data:`pescador.RNG`, as arguments and one level inside a list, tuple or dict, get seeds of this
  opening.
- Anything else becomes what :mod:`pescador.isolation` makes of it. So does the object whose method or
  ``__call__`` is the generator function, and one that is iterated over.

What a function refers to other than by its arguments (globals, closure, defaults) is none of this: it is
shared.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, Final

from . import seeding
from .isolation import ATOMS, Copies
from .opening import ArgumentContext, Context, Openable
from .seeding import RNG, Seed, SeedSource

__all__ = ["bind_arguments", "explain_read_only", "own_iterable", "seed_sources"]

INHERITING: Final = (Openable, type(RNG))
"""Classes whose instances inherit a seed from the opening."""

READ_ONLY: Final = (
    "The arrays among the arguments of a Streamer are read-only, because its other openings share them; a "
    "generator that wants to change one makes a copy first"
)


def bind_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Context
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return a generator function and its arguments, as they are for one opening."""
    if isinstance(function, functools.partial):  # its arguments belong to the recipe, too
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    bind = _Binding(context).bind
    return bind(function), tuple([bind(value) for value in args]), {k: bind(v) for k, v in kwargs.items()}


def own_iterable(source: Iterable[Any]) -> Iterable[Any]:
    """Return what one opening iterates over.

    That is a copy if the class of `source` iterates in Python, so that it may keep a state. An iterator
    continues where it was left, and what is built in (a list, an array) is only read.
    """
    kind: Any = type(source)
    method = getattr(kind, "__iter__", None) or getattr(kind, "__getitem__", None)
    if type(method) is not types.FunctionType or isinstance(source, Iterator):
        return source
    return Copies().own(source)  # type: ignore[no-any-return]


def explain_read_only(error: ValueError) -> None:
    """Note why an array may be read-only, if that is what the error is about (from Python 3.11 on)."""
    notes = getattr(error, "__notes__", ())
    if "read-only" in str(error) and READ_ONLY not in notes and hasattr(error, "add_note"):
        error.add_note(READ_ONLY)


def seed_sources(values: Iterable[Any]) -> tuple[SeedSource, ...]:
    """Return what counts the openings of the streams among arguments, also one level inside containers."""
    found: dict[SeedSource, None] = {}
    for value in values:
        kind = type(value)
        if kind in ATOMS:
            continue
        if isinstance(value, functools.partial):
            found.update(dict.fromkeys(seed_sources([*value.args, *value.keywords.values()])))
        elif isinstance(value, Openable):
            found.update(dict.fromkeys(value._sources))
        elif kind in (list, tuple, dict):
            entries = value.values() if kind is dict else value
            if _any_inherits(entries):
                for entry in entries:
                    if isinstance(entry, Openable) and entry._sources:
                        found.update(dict.fromkeys(entry._sources))
    return tuple(found)


class _Binding:
    """The arguments of one opening, which get seeds from its context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seed: Seed | None = None
        self._generators, self._streams = count(), count()
        self._copies = Copies()

    def bind(self, value: Any) -> Any:
        """Return an argument as it is for this opening."""
        kind = type(value)
        if kind in ATOMS:
            return value
        if _inherits(value):
            return self._inheriting(value)
        # One level deep, and only if there is something to bind, for whoever else holds it holds another one.
        if kind in (list, tuple) and _any_inherits(value):
            return kind([self._bind_entry(entry) for entry in value])
        if kind is dict and _any_inherits(value.values()):
            return {self._copies.own(key): self._bind_entry(entry) for key, entry in value.items()}
        return self._copies.own(value)

    def _bind_entry(self, value: Any) -> Any:
        return self._inheriting(value) if _inherits(value) else self._copies.own(value)

    def _inheriting(self, value: Any) -> Any:
        if self._seed is None:
            self._seed = self._context.seed()
        if value is RNG:
            return self._seed.child(seeding.GENERATOR, next(self._generators)).generator()
        return value._bind(ArgumentContext(self._seed.child(seeding.ARGUMENT, next(self._streams))))


def _inherits(value: Any) -> bool:
    return isinstance(value, INHERITING)


def _any_inherits(values: Iterable[Any]) -> bool:
    """Whether any value inherits a seed, of perhaps millions, all of a few types."""
    return any(issubclass(kind, INHERITING) for kind in set(map(type, values)) - ATOMS)
