"""One iteration over a stream: what ``iterate()`` and ``cycle()`` return.

Items come out of a generator. :class:`Items` passes them on in C and can be asked where it stands, and where
the last item came from. Its place (see :mod:`.place`) is also known to the stream, which can so be asked when
the iteration is over. Nothing is counted in Python for it: each activated copy passes its items through a
``repeat`` of so many times, which knows how often it was asked.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import closing
from itertools import chain, count, islice
from types import FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from . import seeding
from .arguments import explain_read_only
from .exceptions import PescadorError
from .opening import Context, State
from .place import ENDED, NEW, Place

if TYPE_CHECKING:  # which import this module
    from .core import Streamer
    from .origin import Origin

    T_co = TypeVar("T_co", covariant=True)

    class _Passed(chain[T_co], Generator[T_co, None, None]):  # type: ignore[type-var]  # items come out only
        pass

else:
    T_co = TypeVar("T_co", covariant=True)

    class _Passed(chain, Generator):
        def __class_getitem__(cls, item: object) -> type:
            return cls


T = TypeVar("T")

__all__ = ["Items", "activated", "epochs", "iteration", "saved"]


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
        self = super().__new__(cls, generator)
        self._generator, self._place = generator, place
        place.generator = weakref.ref(generator)
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
    if max_iter == 0 and place is not None:
        place.end()
    if max_iter == 0 or (place is not None and place.status == ENDED):
        return
    active = None
    try:
        active = stream._enter(place)
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
        if active is not None:
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
    return names.get("active") or names["stream"]  # type: ignore[no-any-return]
