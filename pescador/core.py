"""Streamer, the recipe of a stream.

Opening a stream makes a shallow *activated copy* of its recipe, which holds the running iterator. It calls
the generator function with arguments of its own (see :mod:`pescador.arguments`), so several openings of one
Streamer never share state. What it is opened with is a :class:`~pescador.opening.Context`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar

from .arguments import Undecorated, bind, call, own_iterator, seed_sources, stateless
from .checkpoint import Resumable, not_restartable
from .checks import check_source, item_limit, limits, whole_number
from .closing import close
from .describe import shown
from .exceptions import ParameterError, PescadorError
from .isolation import ATOMS
from .iteration import Items, epochs, iteration
from .opening import Context, Loaded, State
from .place import Place
from .seeding import lock

__all__ = ["Streamer", "streamable"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
Self = TypeVar("Self", bound="Streamer[Any]")


class Streamer(Resumable, Generic[T_co]):
    """The recipe of a stream: an iterable, or a generator function and its arguments.

    A recipe can be opened any number of times, nested, pickled and sent to another process. No opening
    changes it.

    Parameters
    ----------
    streamer : iterable, callable or Streamer
        What produces the items: any iterable, or a generator function (also a partial, a bound
        method or an object whose ``__call__`` is a generator function). A one-shot iterator
        continues where it was left.
    *args, **kwargs
        Arguments of the generator function; of another Streamer, what it is called with:
        ``Streamer(stream, max_iter=10, cycle=True)``. Streamers among them (also in a list, tuple or dict)
        inherit their randomness from this stream, and :data:`pescador.RNG` is replaced with a
        :class:`numpy.random.Generator` of the activation's own seed. Each opening starts from the arguments
        as they are here, and nobody else sees what it does to them: arrays arrive read-only (copy one that
        is to be changed), other mutable objects are copied, with the arrays inside them shared, and what
        cannot be copied, such as a lock or an open file, is shared. The same holds for an object that is
        iterated over, or whose method or ``__call__`` is the generator function.

    Attributes
    ----------
    streamer, args, kwargs
        As given.
    stream_ : iterator or None
        The open iterator, in an activated copy.
    is_activated_copy : bool
        Whether this object is an activated copy.

    Raises
    ------
    PescadorError
        If `streamer` is neither an iterable nor a callable, or arguments come with an iterable, or
        are not those that a Streamer is called with.

    Examples
    --------
    >>> from pescador import Streamer
    >>> def count_to(n):
    ...     for i in range(n):
    ...         yield i
    >>> stream = Streamer(count_to, 5)
    >>> list(stream)
    [0, 1, 2, 3, 4]
    >>> list(stream(max_iter=3))
    [0, 1, 2]
    >>> list(stream.cycle(max_iter=7))
    [0, 1, 2, 3, 4, 0, 1]
    """

    stream_: Iterator[T_co] | None = None
    is_activated_copy = False
    _is_fresh = False  # whether this is a copy that was made to be opened once
    _open_copies: Any = None  # a list, once there was one
    _with_block_of: int | None = None  # the thread, if this copy was activated by a with block

    def __init__(
        self, streamer: Callable[..., Iterable[T_co]] | Iterable[T_co], *args: Any, **kwargs: Any
    ) -> None:
        self._called = check_source(streamer, bool(args or kwargs))
        if isinstance(streamer, Streamer):
            limits(*args, **kwargs)
        self.streamer, self.args, self.kwargs = streamer, args, kwargs
        self._open_copies = None
        self._atoms = args if ATOMS.issuperset(map(type, (streamer, *args))) else None
        if self._called or isinstance(streamer, Streamer):
            own = streamer.__self__ if isinstance(streamer, MethodType) else streamer
            # If there are none, the attribute of the class serves a million streams.
            if sources := seed_sources([own, *args, *kwargs.values()]):
                self._sources = sources

    # Iteration

    @stateless
    def iterate(self, max_iter: float | None = None, *, epoch: int = 0) -> Items[T_co]:
        """Open the stream and iterate over it once.

        Parameters
        ----------
        max_iter : int, optional
            At most so many items are taken, and none beyond them. A float is taken if it is whole.
        epoch : int
            Which epoch of :meth:`cycle` it is; each has a seed of its own. Where a state was loaded, it
            is the epoch of that.

        Returns
        -------
        items : iterator
            The items of the stream, unchanged. It is a generator, and has :meth:`state_dict` and ``origin()``
            besides, which tells where the last item came from (see :func:`pescador.replay`).
        """
        limit, epoch = item_limit(max_iter), whole_number(epoch, "epoch", 0)
        place = self._begin(epoch)
        return Items(iteration(self, limit, place), self, place)

    @stateless
    def cycle(self, max_iter: float | None = None) -> Items[T_co]:
        """Iterate over the stream again and again.

        The first epoch is that of :meth:`iterate`; each further one has a seed of its own. A stream
        that yields nothing ends.

        Parameters
        ----------
        max_iter : int, optional
            At most so many items are taken in all.
        """
        limit, place = item_limit(max_iter), self._begin()
        return Items(epochs(self, limit, place), self, place)

    @stateless
    def __call__(
        self, max_iter: float | None = None, cycle: bool = False, *, max_items: float | None = None
    ) -> Items[T_co]:
        """Iterate over the stream, once or (`cycle`) again and again.

        Parameters
        ----------
        max_iter : int, optional
            At most so many items are taken.
        cycle : bool
            Start again whenever the stream ends.
        max_items : int, optional
            Another name for `max_iter`, which the documentation of version 2 uses.
        """
        max_iter, cycle = limits(max_iter, cycle, max_items=max_items)
        return self.cycle(max_iter) if cycle else self.iterate(max_iter)

    def __iter__(self) -> Iterator[T_co]:
        return self.iterate()

    def _begin(self, epoch: int = 0) -> Place:
        """Return the place of an iteration that begins now, or goes on from what was loaded."""
        self._place, self._loaded = Place(self._loaded, epoch), None
        return self._place

    # Activation

    def open(
        self, context: Context, max_iter: int | None = None, state: State | None = None
    ) -> Generator[T_co, None, None]:
        """Iterate over the stream with a given seed and opener (for authors of muxes and backends).

        Parameters
        ----------
        context : Context
            The seed of this activation, and what streams below this one are opened with.
        max_iter : int, optional
            At most so many items are taken.
        state : dict, optional
            Where it stood, under the same seed; `max_iter` counts from the beginning nevertheless.
        """
        bound = self._bind(context, state)
        bound._is_fresh = True
        return iteration(bound, max_iter)

    def _bind(self: Self, context: Context, state: State | None = None) -> Self:
        """Return a shallow copy that is opened with `context`, to go on from `state`."""
        if self._open_copies is None:
            # All copies share it. It is made for the first: most of a million streamers are never opened.
            with lock:
                if self._open_copies is None:
                    self._open_copies = []
        bound = object.__new__(type(self))
        if type(self) is Streamer:
            # Reading __dict__ would make a dict of the attributes, which stays. Over a million streamers
            # that takes a fifth of the time of a sample.
            bound.streamer, bound.args, bound.kwargs = self.streamer, self.args, self.kwargs
            bound._called, bound._atoms = self._called, self._atoms
            bound._open_copies = self._open_copies
            if self._sources:
                bound._sources = self._sources
        else:
            bound.__dict__.update(self.__dict__)
            bound._place = bound._loaded = None
        bound._context = context
        if state is not None:
            bound._state = state
        return bound

    def _enter(self: Self, place: Place | None = None, with_block_of: int | None = None) -> Self:
        if self._is_fresh:
            active, self._is_fresh = self, False
        elif place is None:
            active = self._bind(self._next_context())
        else:
            place.active = active = self._bind(place.begin_epoch(self), place.state)
        active.is_activated_copy = True
        active._with_block_of = with_block_of
        active._activate()
        self._open_copies.append(active)
        return active

    def _exit(self, active: Streamer[Any]) -> None:
        self._open_copies.remove(active)
        active._deactivate()

    def _activate(self) -> None:
        """Set ``stream_``. Runs on the activated copy; override it for a new type of stream."""
        source: Any = self.streamer
        context = self._context
        assert context is not None
        if isinstance(source, Streamer):
            max_iter, cycle = limits(*self.args, **self.kwargs)
            state = self._state.get("source") if self._state else None
            if cycle:
                bound = source._bind(context)
                bound._loaded = None if state is None else Loaded(state)
                self.stream_ = bound.cycle(max_iter)
            else:
                self.stream_ = context.opener.open(source, context.seed(), max_iter, state)
        elif self._called and self._atoms is self.args and not self.kwargs:
            # That the arguments can be passed as they are was found out once, for all openings.
            self.stream_ = call(source, self.args, {})
        elif self._called:
            given = bind(source, self.args, self.kwargs, context, self._state)
            self._arguments, self._seeks = given.streams, given.seeks
            self.stream_ = call(given.function, given.args, given.kwargs)
        else:
            self.stream_ = own_iterator(source)

    def _deactivate(self) -> None:
        # Whatever was opened here is closed here, now and not when it happens to be collected.
        held, self.stream_ = [self.stream_], None
        close(held)

    def __enter__(self: Self) -> Self:
        return self._enter(with_block_of=threading.get_ident())

    def __exit__(self, *exception: object) -> None:
        thread = threading.get_ident()
        self._exit(next(active for active in reversed(self._open_copies) if active._with_block_of == thread))

    @property
    def mixes(self) -> bool:
        """Whether this is a mux, or a Streamer of one: several workers share the streams that it mixes."""
        return isinstance(self.streamer, Streamer) and self.streamer.mixes

    @property
    def active_count_(self) -> int:
        """Number of open activations."""
        return len(self._open_copies or ())

    active = active_count_  # 0 is false

    # Copies

    def __copy__(self: Self) -> Self:
        self._refuse_activated("copied")
        duplicate = object.__new__(type(self))
        duplicate.__dict__.update(self.__dict__)
        duplicate._open_copies = duplicate._place = duplicate._loaded = None
        return duplicate

    def __getstate__(self) -> dict[str, Any]:
        self.check_recipe()
        state = {**self.__dict__, "_open_copies": None}
        for name in ("_context", "_place", "_loaded"):
            state.pop(name, None)
        return state

    def check_recipe(self) -> None:
        """Raise PescadorError if this stream cannot be opened elsewhere (for authors of backends)."""
        self._refuse_activated("pickled or deep-copied")
        if isinstance(self.streamer, Iterator):
            raise not_restartable(self.streamer, "pickled, deep-copied or sent to a worker")

    def _refuse_activated(self, what: str) -> None:
        if self.is_activated_copy:
            raise PescadorError(
                f"an activated copy of a {type(self).__name__} cannot be {what}: it holds a running "
                "iterator. Use the Streamer from which it was activated"
            )

    def __repr__(self) -> str:
        arguments = [shown(value) for value in (self.streamer, *self.args)]
        arguments += [f"{name}={shown(value)}" for name, value in self.kwargs.items()]
        return f"{type(self).__name__}({', '.join(arguments)})"


def streamable(function: Callable[P, Iterable[T]]) -> Callable[P, Streamer[T]]:
    """Turn a generator function into a factory of Streamers.

    Parameters
    ----------
    function : callable
        A generator function.

    Returns
    -------
    factory : callable
        Takes the same arguments, and returns ``Streamer(function, *args, **kwargs)``.

    Examples
    --------
    >>> from pescador import streamable
    >>> @streamable
    ... def count_to(n):
    ...     yield from range(n)
    >>> stream = count_to(3)
    >>> list(stream), list(stream.cycle(5))
    ([0, 1, 2], [0, 1, 2, 0, 1])
    """
    if not callable(function):
        raise ParameterError(f"streamable takes a generator function, not {shown(function)}")

    @functools.wraps(function)
    def factory(*args: P.args, **kwargs: P.kwargs) -> Streamer[T]:
        return Streamer(Undecorated(factory), *args, **kwargs)

    return factory
