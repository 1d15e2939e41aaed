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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import Any, Final, NamedTuple, TypeVar, cast

from . import seeding
from .checks import is_iterable
from .describe import shown
from .exceptions import ParameterError
from .isolation import ATOMS, Copies
from .opening import START, Context, Loaded, Openable, RepeatedContext
from .seeding import RNG, Seed, SeedSource

__all__ = [
    "Bound",
    "Undecorated",
    "bind",
    "call",
    "explain_read_only",
    "is_stateless",
    "own_iterator",
    "seed_sources",
    "stateless",
]

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

INHERITING: Final = (Openable, type(RNG), type(START))
"""Classes whose instances become something else at each opening: all streams, and the markers."""

READ_ONLY: Final = (
    "The arrays among the arguments of a Streamer are read-only, because its other openings share them; a "
    "generator that wants to change one makes a copy first"
)


class Bound(NamedTuple):
    """A generator function, with the arguments of one opening."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    streams: Sequence[Openable]
    """The streams that it may open, in the order in which their seeds are numbered."""
    seeks: bool
    """Whether it is told by START which item comes next."""


def bind(
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: Context,
    state: dict[str, Any] | None = None,
) -> Bound:
    """Return a generator function with the arguments of one opening.

    Parameters
    ----------
    function, args, kwargs
        Of the recipe.
    context : Context
        The streams among the arguments get their seeds from it.
    state : dict, optional
        Where the opening stands, see :data:`pescador.opening.State`.
    """
    given: Any = function
    state = state or {"n": 0}
    binding = _Binding(context, state["n"], state.get("source", ()))
    if isinstance(given, types.MethodType) and isinstance(given.__self__, Openable):
        # The method's first opening of its stream is that of the recipe, each further one has its own seed.
        seed = context.seed()
        stream = binding.bind_stream(given.__self__, lambda n: seed.child(seeding.OPENING, n) if n else seed)
        given = types.MethodType(given.__func__, stream)
    if isinstance(given, partial):  # its arguments belong to the recipe, too
        given, args, kwargs = given.func, (*given.args, *args), {**given.keywords, **kwargs}
    own = binding.bind
    given, args, kwargs = (
        own(given),
        tuple(map(own, args)),
        {key: own(value) for key, value in kwargs.items()},
    )
    return Bound(given, args, kwargs, binding.streams, binding.seeks)


def call(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """Call a generator function, and return its iterator."""
    result = function(*args, **kwargs)
    if not is_iterable(result):
        raise ParameterError(
            f"{shown(function)} returned {shown(result)} of type {type(result).__name__}, "
            "which is not an iterator; is it a generator function (does it yield)?"
        )
    return iter(result)  # type: ignore[call-overload, no-any-return]  # which is_iterable() told


def stateless(function: Function) -> Function:
    """Mark a generator function as one that holds nothing between two items.

    When a stream of it goes on from a state (see :meth:`Streamer.state_dict`), the function is called anew,
    with the streams among its arguments where they stood. Without the mark, all its items are made again.

    Parameters
    ----------
    function : callable
        Called anew between two items, it gives the same items as if it went on: it holds nothing that it was
        given, has counted or drawn. Each stream among its arguments has at most one open iterator, and the
        first that it opens when it is called anew goes on where the last one stood: at its end, if that had
        ended. Marked are :func:`~pescador.buffer_stream`, :func:`~pescador.tuples`,
        :func:`~pescador.keras_tuples`, :func:`~pescador.skip_errors`, and Python's `map` and `filter`, whose
        function has to give the same for the same item.

    Returns
    -------
    function : callable
        The same.

    Examples
    --------
    >>> import pescador
    >>> @pescador.stateless
    ... def pairs(stream):
    ...     items = iter(stream)
    ...     yield from zip(items, items)
    >>> stream = pescador.Streamer(pairs, pescador.Streamer(range, 10))
    >>> items = iter(stream)
    >>> next(items), next(items)
    ((0, 1), (2, 3))
    >>> stream.load_state_dict(items.state_dict())
    >>> list(stream)
    [(4, 5), (6, 7), (8, 9)]
    """
    try:
        function._pescador_stateless = True  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        raise ParameterError(
            f"stateless marks a generator function, or an object that is called like one; {shown(function)} "
            "takes no mark. Mark a method in its class, and call what is built in from a function of yours"
        ) from None
    return function


def is_stateless(function: Any, args: tuple[Any, ...]) -> bool:
    """Whether a generator function holds nothing between two items."""
    if isinstance(function, Undecorated):
        function = function.factory
    marked = (function, type(function).__call__)
    if any(getattr(one, "_pescador_stateless", False) is True for one in marked):
        return True
    if isinstance(function, partial):
        return is_stateless(function.func, (*function.args, *args))
    return (function is map or function is filter) and all(
        isinstance(argument, Openable) for argument in args[1:]
    )


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

    def __init__(self, context: Context, start: int, states: Sequence[Any]) -> None:
        self.streams: list[Any] = []
        self.seeks = False
        self._context = context
        self._start = start
        self._states = states  # of the streams, in their order
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
        if value is START:
            self.seeks = True
            return self._start
        if self._seed is None:
            self._seed = self._context.seed()
        if isinstance(value, Openable):
            return self.bind_stream(value, self._seed.child(seeding.ARGUMENT, next(self._streams)).child)
        return self._seed.child(seeding.GENERATOR, next(self._generators)).generator()

    def bind_stream(self, stream: Openable, seed_of: Callable[[int], Seed]) -> Any:
        """Return a stream that gets its seeds from this opening, and goes on where it stood."""
        state: Sequence[Any] = self._states[len(self.streams)] if self._states else [0]
        bound = stream._bind(RepeatedContext(seed_of, *state[:1]))
        if len(state) > 1:
            bound._loaded = Loaded(state[1])
        self.streams.append(bound)
        return bound


def _any_inherits(values: Iterable[object]) -> bool:
    """Whether any value inherits a seed. There may be millions, but only of a few types."""
    return any(issubclass(kind, INHERITING) for kind in set(map(type, values)) - ATOMS)
