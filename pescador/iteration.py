"""One iteration over a stream: what ``iterate()`` and ``cycle()`` return, and where it stands.

Items come out of a generator. :class:`Items` passes them on in C and can be asked where it stands, and where
the last item came from. Its :class:`Place` is also known to the stream, which can so be asked when the
iteration is over. Nothing is counted in Python for it: each activated copy passes its items through a
``repeat`` of so many times, which knows how often it was asked.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import closing
from itertools import count, islice
from types import FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from . import seeding
from .arguments import explain_read_only
from .exceptions import PescadorError
from .opening import Context, Loaded, RepeatedContext, State
from .seeding import Seed

if TYPE_CHECKING:  # which import this module
    from .core import Streamer
    from .origin import Origin

    T_co = TypeVar("T_co", covariant=True)

    class _Passed(islice[T_co], Generator[T_co, None, None]):  # type: ignore[type-var]  # items come out only
        pass

else:
    T_co = TypeVar("T_co", covariant=True)

    class _Passed(islice, Generator):
        def __class_getitem__(cls, item: object) -> type:
            return cls


T = TypeVar("T")

__all__ = ["OPEN", "Items", "Place", "activated", "epochs", "iteration", "saved"]

NEW, OPEN, CLOSED, ENDED, RAISED = "new", "open", "closed", "ended", "raised"


class Place:
    """Where an iteration stands.

    Attributes
    ----------
    status : str
        'new', 'open', 'closed' (broken off), 'ended' or 'raised'.
    epoch : int
        Number of the epoch of :meth:`Streamer.cycle`.
    before : int
        Items of the epochs before.
    state : dict or None
        What the next activated copy begins with.
    active : Streamer or None
        The activated copy.
    seed : Seed or None
        That of the opening.
    number : int
        Of a stream among the arguments of another: how often it was opened before.
    """

    __slots__ = ("_left", "active", "before", "epoch", "number", "seed", "state", "status")

    def __init__(self, loaded: Loaded | None = None, epoch: int = 0) -> None:
        self.status = NEW
        self.epoch = epoch
        self.before = self.number = 0
        self.state: State | None = None
        self.seed: Seed | None = None
        self.active: Streamer[Any] | None = None
        self._left: State | PescadorError | None = None
        if loaded is not None:
            self.seed, self.state = loaded.seed, loaded.state
            if self.state is None:
                self.status = ENDED
            else:
                self.epoch, self.before = self.state.get("epoch", 0), self.state.get("before", 0)

    def begin(self, stream: Streamer[Any]) -> Context:
        """Return what the iteration is opened with, but for the epoch."""
        context = Context(self.seed) if self.seed is not None else stream._next_context()
        if isinstance(context, RepeatedContext):
            self.number = context.number
        else:
            self.seed = context.seed()
        self.status = OPEN
        return context

    def begin_epoch(self, stream: Streamer[Any]) -> Context:
        """Return what one epoch is opened with."""
        context = self.begin(stream)
        if self.epoch:
            context = Context(context.seed().child(seeding.EPOCH, self.epoch), context.opener)
        return context

    def opened_with(self) -> Seed:
        """Return the seed of the activated copy."""
        context = None if self.active is None else self.active._context
        assert context is not None
        if isinstance(context, RepeatedContext):  # it is at its next opening already
            return context.seed_of(self.number)
        return context.seed()

    def leave(self) -> None:
        """Take note of where the iteration stands, which is closed now."""
        try:
            self._left = self.save()
        except Exception as error:
            error.__traceback__ = None  # it would keep the stream
            self._left = error if isinstance(error, PescadorError) else PescadorError(repr(error))
        self.status, self.active = CLOSED, None

    def fail(self) -> None:
        """Take note that the stream raised."""
        self.status, self.active = RAISED, None

    def end(self) -> None:
        """Take note that the stream ended."""
        self.status, self.active = ENDED, None

    def save(self) -> State | None:
        """Return where the iteration stands; None if it ended, or nothing of it was loaded or given.

        Raises
        ------
        PescadorError
            If that cannot be told.
        """
        if self.status == RAISED:
            raise PescadorError(
                "this stream has raised, so there is no place from which it could go on. Mend the cause, and "
                "begin a new iteration, or go on from a state that was saved before"
            )
        if isinstance(self._left, PescadorError):
            raise self._left
        if self.status == CLOSED:
            return self._left
        if self.active is None:
            return self.state
        if getattr(self.active.stream_, "gi_running", False):
            raise PescadorError(
                "a state can be saved between two items only, but the stream is producing one now: was "
                "state_dict() called inside its generator, or on another thread than the one that iterates?"
            )
        state: State = self.active._save()
        if self.epoch:
            state = {"epoch": self.epoch, "before": self.before, **state}
        return state


class Items(_Passed[T_co]):
    """An iterator over the items of a stream: a generator that can also be asked where it stands.

    :func:`isinstance` takes it for a generator, as code does that asks for one (Keras). When it is collected,
    or closed, so is the stream.
    """

    _generator: Any
    _stream: weakref.ref[Streamer[T_co]]
    _place: Place

    def __new__(  # noqa: D102
        cls, generator: Generator[T_co, None, None], stream: Streamer[T_co], place: Place
    ) -> Items[T_co]:
        self = super().__new__(cls, generator, None)
        self._generator, self._place = generator, place
        self._stream = weakref.ref(stream)  # while it is open, the generator holds it
        return self

    def send(self, value: Any) -> T_co:
        """Return the next item; like any generator."""
        item: T_co = self._generator.send(value)
        return item

    def throw(self, *exception: Any) -> T_co:
        """Raise an exception where the stream waits, which ends it; like any generator."""
        item: T_co = self._generator.throw(*exception)
        return item

    def close(self) -> None:
        """Close the stream."""
        self._generator.close()

    def state_dict(self) -> State:
        """Return where this iterator stands, see :meth:`Streamer.state_dict`."""
        stream = self._stream()
        if stream is None:
            raise PescadorError(
                "this iterator is over, and its stream is gone, which alone knows what it is of"
            )
        return stream._state_of(self._place)

    def save(self) -> State | None:
        """Return where this iterator stands in its stream."""
        return self._place.save()

    def origin(self) -> Origin:
        """Return where the item came from that was delivered last, for debugging.

        Nothing is noted for it beforehand, so an iterator that is not asked is not slower. If a whole mux
        runs on a worker, its streams are opened here once more, for the time of this call. They must give
        the same items for the same seed; and if :attr:`weights` were changed since the mux was opened there,
        what is told may be wrong.

        Returns
        -------
        origin : Origin
            The way to the item from this stream down, its number, and the seed that opens the stream again
            that made it. :func:`pescador.replay` makes it again.

        Raises
        ------
        PescadorError
            If no item was delivered yet; if the iterator was closed, has ended or raised; or if the stream
            is producing an item at this moment.

        Examples
        --------
        >>> import pescador
        >>> mux = pescador.RoundRobinMux(['abc', 'xyz'], random_state=0)
        >>> items = mux.iterate()
        >>> next(items), next(items), next(items), next(items)
        ('a', 'x', 'b', 'y')
        >>> print(items.origin())
        <RoundRobinMux of 2 streamers>
        stream 1, activation (1, 0): Streamer('xyz')
        item 1, under Seed(0, (3, 1, 0))
        >>> pescador.replay(items.origin())
        'y'
        """
        if self._generator.gi_running:
            raise PescadorError(
                "an origin can be told between two items only, but the stream is producing one now: was "
                "origin() called inside its generator, or on another thread than the one that iterates?"
            )
        stream = self._stream()
        if self._place.status == NEW:
            raise PescadorError("no item was delivered yet, so there is none whose origin could be told")
        if self._generator.gi_frame is None or stream is None:
            raise PescadorError(
                "this iterator is over, and its streams are gone. Ask for the origin of an item before you "
                "ask for the next one, or close the iterator"
            )
        return stream._origin_of(self)

    @property  # type: ignore[misc]  # isinstance() asks for it besides type()
    def __class__(self) -> type:  # type: ignore[override]
        return GeneratorType

    def __getattr__(self, name: str) -> Any:
        if name.startswith("gi_"):
            return getattr(self._generator, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle an open iterator of a stream; state_dict() says where it stands")

    def __repr__(self) -> str:
        return f"<iterator over {self._stream()!r}>"


def iteration(
    stream: Streamer[T], max_iter: int | None, place: Place | None = None
) -> Generator[T, None, None]:
    """Iterate over a stream once: what comes out of :meth:`Streamer.open`, and, with a `place`, of Items."""
    if max_iter == 0 or (place is not None and place.status == ENDED):
        return
    active = stream._enter(place)
    try:
        # What counts has no close(), so the stream is closed by _exit() alone, which knows of those that
        # ignore it. No name refers to the stream here, so that it is gone then.
        yield from active._counted(max_iter)
        if place is not None:
            place.end()
    except GeneratorExit:
        if place is not None:
            place.leave()
        raise
    except BaseException as error:
        if place is not None:
            place.fail()
        if isinstance(error, ValueError):
            explain_read_only(error)
        raise
    finally:
        stream._exit(active)


def epochs(stream: Streamer[T], max_iter: int | None, place: Place) -> Generator[T, None, None]:
    """Iterate over a stream again and again."""
    if place.status == ENDED:
        return
    context = place.begin(stream)
    seed = context.seed()
    for epoch in count(place.epoch):
        place.epoch = epoch
        left = None if max_iter is None else max_iter - place.before
        own = seed.child(seeding.EPOCH, epoch) if epoch else seed
        place.active = active = stream._bind(Context(own, context.opener), place.state)
        active._is_fresh = True
        place.state = None
        with closing(iteration(active, left)) as items:
            try:
                yield from islice(items, None)  # as above
            except GeneratorExit:
                place.leave()
                raise
            except BaseException:
                place.fail()
                raise
        if not active.n_given or left == active.n_given:
            break
        place.before += active.n_given
    place.end()


def saved(stream: Any) -> State | None:
    """Return where a stream stands, None if it has ended.

    It is an iterator of :meth:`Streamer.open`, of a pool, or Items.
    """
    if hasattr(stream, "save"):
        state: State | None = stream.save()
        return state
    return None if stream.gi_frame is None else _active_in(stream.gi_frame)._save()


def activated(stream: Any) -> Streamer[Any] | None:
    """Return the activated copy behind an open iterator; None if it runs elsewhere, or is not one of ours."""
    if isinstance(stream, Items):
        return stream._place.active
    frame = getattr(stream, "gi_frame", None)
    return _active_in(frame) if frame is not None and frame.f_code is iteration.__code__ else None


def _active_in(frame: FrameType) -> Streamer[Any]:
    """Return the activated copy of a call of :func:`iteration`."""
    # To keep it at hand for the rare case in which somebody asks would cost each opening.
    names = frame.f_locals
    return names.get("active", names["stream"])  # type: ignore[no-any-return]
