"""BaseMux: how a mux opens its streams, and how to write one of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, Final, TypeVar, cast

import numpy as np

from .. import seeding
from ..arguments import seed_sources
from ..core import Streamer
from ..exceptions import ParameterError, PescadorError
from ..fingerprint import Parts, summary
from ..iteration import saved
from ..opening import Opener, State, at
from ..origin import Below
from ..seeding import RandomState, Seed, SeedSource

__all__ = ["BaseMux", "Member", "as_streamer", "check_mode", "take_one"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Samples = TypeVar("Samples", bound=Callable[..., Any])

Member = Iterable[T] | Callable[[], Iterable[T]]
"""What a mux draws from: a Streamer, or whatever a Streamer can be made of."""

PARAMETERS = ("mode", "n_active", "rate", "dist", "prune_empty_streams")
"""Attributes that tell a mux from others, where it has them."""

UNOPENED: Final[Iterator[Any]] = iter(())
"""Stands where a stream is not open yet.

Taking an item from it raises StopIteration, as from a stream that has ended. So a loop that draws items
needs no check of its own for streams that are still to be opened, and other items cost nothing more.
"""


def take_one(stream: Iterator[T]) -> list[T]:
    """Return a list of the next item of a stream, which is empty at its end.

    ``yield taken.pop()`` passes the item on and keeps no reference to it, as does ``yield next(stream)``: so
    a worker delivers arrays of :func:`pescador.empty` without copying them.
    """
    return list(islice(stream, 1))


def knows_count(samples: Samples) -> Samples:
    """Mark a method `samples` as one whose mux knows by itself how many there were, so that nobody counts."""
    samples._knows_count = True  # type: ignore[attr-defined]
    return samples


class BaseMux(Streamer[T_co]):
    """Base class of all muxes.

    A mux is a Streamer that draws its items from other streams. A subclass writes
    :meth:`samples`, a generator that runs on an activated copy: it opens streams with
    :meth:`open_stream` and takes its randomness from :meth:`generator`, both of which follow from the
    seed of the activation. Everything else (nesting, cycling, seeds, running in the background)
    comes with the base class.

    Parameters
    ----------
    streamers : iterable of Streamer or iterable
        What to draw from; plain iterables are wrapped.
    random_state : int, SeedSequence, Generator, RandomState or None
        An int gives the same sequence at every opening. A Generator or RandomState is asked once, and
        gives each opening the next sequence, also of a tree that this mux is part of, wherever it runs.
        None takes the seed of the mux that opens this one, or NumPy's global state.

    Raises
    ------
    PescadorError
        If there are no streamers, or one of them cannot be iterated over.

    Examples
    --------
    A mux that draws two samples in a row from a random stream:

    >>> import pescador
    >>> class PairMux(pescador.BaseMux):
    ...     def samples(self):
    ...         rng = self.generator()
    ...         streams = [self.open_stream(i) for i in range(self.n_streams)]
    ...         with self.closing(streams):
    ...             while streams:
    ...                 stream = streams[rng.integers(len(streams))]
    ...                 for _ in range(2):
    ...                     try:
    ...                         yield next(stream)
    ...                     except StopIteration:
    ...                         streams.remove(stream)
    ...                         break
    >>> ''.join(PairMux(['aaaa', 'bbbb'], random_state=0))
    'bbbbaaaa'
    """

    def __init__(self, streamers: Iterable[Member[T_co]], random_state: RandomState = None) -> None:
        if isinstance(streamers, Streamer) or not isinstance(streamers, Iterable):
            raise ParameterError(
                f"{type(self).__name__} takes a collection of streamers, not a {type(streamers).__name__}"
            )
        members = [as_streamer(member, i) for i, member in enumerate(streamers)]
        if not members:
            raise ParameterError(f"{type(self).__name__} needs at least one streamer, got none")
        self._set_up(members, random_state)

    def _set_up(self, streamers: Iterable[Any], random_state: RandomState) -> None:
        super().__init__(streamers)
        self._seed_source = source = SeedSource(random_state)
        sources = seed_sources([streamers])
        if source.counts:
            sources = (source, *sources)
        if sources:
            self._sources = sources

    @property
    def streamers(self) -> list[Streamer[T_co]]:
        """The streamers, in the order in which they were given."""
        return self.streamer  # type: ignore[no-any-return]  # the constructor made it a list

    @property
    def n_streams(self) -> int:
        """Number of streamers."""
        return len(self.streamers)

    @property
    def mixes(self) -> bool:
        """True: several workers share the streams of a mux."""
        return True

    def samples(self) -> Iterator[T_co]:
        """Yield the samples of one activation. To be written by subclasses, as a generator."""
        raise NotImplementedError(f"{type(self).__name__} does not define samples()")

    def open_stream(self, index: int, *key: int, max_iter: int | None = None) -> Iterator[T_co]:
        """Open one of the streamers.

        Parameters
        ----------
        index : int
            Which one.
        *key : int
            Number of the activation, from which its seed follows; `index` if not given. Give a key
            whenever a streamer may be opened more than once.
        max_iter : int, optional
            The stream ends after so many items.

        Returns
        -------
        stream : iterator
            Starts when its first item is asked for.
        """
        key = key or (index,)
        state = self._resumed.pop(key, None) if self._resumed else None
        if self._early:
            known, stream = self._early.pop(key, (None, None))
            if known == (index, max_iter):
                self._opener.claim(self.streamers[index], stream)
                return cast("Iterator[T_co]", stream)
            if stream is not None:  # the guess was wrong
                stream.close()
        return self._open(self.streamers[index], *key, max_iter=max_iter, state=state)

    def open_early(self, index: int, *key: int, max_iter: int | None = None, active: bool = False) -> None:
        """Open a stream that :meth:`open_stream` will probably be asked for.

        Only where streams run in the background. One that is `active` (in the working set, but not drawn
        from yet) produces as much as any; another one just gets ready. A wrong guess costs a worker
        some time, and changes nothing else.
        """
        if not self._opener.is_background:
            return
        if key not in self._early:
            open_stream = self._opener.open if active else self._opener.open_early
            seed = self._seed.child(seeding.STREAM, *key)
            stream = open_stream(self.streamers[index], seed, max_iter, self._resumed.get(key))
            self._early[key] = (index, max_iter), stream
        elif active:
            self._opener.claim(self.streamers[index], self._early[key][1])

    def _open(
        self, streamer: Streamer[T_co], *key: int, max_iter: int | None = None, state: State | None = None
    ) -> Iterator[T_co]:
        return self._opener.open(streamer, self._seed.child(seeding.STREAM, *key), max_iter, state)

    def state(self) -> State | None:
        """Return what :meth:`samples` needs to go on, of what JSON knows; None if it cannot.

        Called between two samples, on the activated copy. A mux that overrides it begins, in :meth:`samples`,
        with what it returned, which is in ``self.resumed`` then (else None). Without it, all samples of an
        activation are made again. Where its streams stand is up to the base class, see :meth:`stream_states`.
        """
        return None

    def stream_states(self, streams: Iterable[tuple[tuple[int, ...], Iterator[Any] | None]]) -> list[Any]:
        """Return where streams stand, for the entry ``streams`` of what :meth:`state` returns.

        :meth:`open_stream` opens each stream where it stood, when it is called with the same key.

        Parameters
        ----------
        streams : iterable of tuple
            Key of a stream, and its iterator. One that is not open is passed over, unless it stood somewhere
            when the mux itself went on from a state.
        """
        states = []
        for key, stream in streams:
            state = self._resumed.get(key) if stream is UNOPENED or stream is None else saved(stream)
            if state is not None:
                states.append([list(map(int, key)), state["n"] if len(state) == 1 else state])
        return states

    def _save_source(self) -> Any:
        # A subclass that overrides one of the two alone may hold more than the other knows of.
        author = next(kind for kind in type(self).__mro__ if "samples" in vars(kind))
        state = self.state() if "state" in vars(author) else None
        if state is None:
            self.check_restartable()
        return state

    def _check_source(self) -> None:
        """A mux reads from its streams alone."""

    def _counting(self, stream: Iterator[T_co], n: int) -> Iterator[T_co]:
        knows = hasattr(type(self).samples, "_knows_count")
        return islice(stream, None) if knows else super()._counting(stream, n)

    @property
    def n_given(self) -> int:
        return self._n_samples if self._has_begun and self._counter is None else super().n_given

    @property
    def _n_samples(self) -> int:
        """How many samples were given, where :meth:`samples` knows it."""
        raise NotImplementedError

    def last_stream(self) -> tuple[int, tuple[int, ...], Iterator[Any]] | None:
        """Return which stream gave the last sample; None if several did, or it was changed.

        Called between two samples, on the activated copy, when somebody asks for the origin of an item. A mux
        that writes :meth:`samples` and not this is itself what is named there, and opened again for a replay.

        Returns
        -------
        index : int
            Which one of the streamers.
        key : tuple of int
            With which it was opened, see :meth:`open_stream`.
        stream : iterator
            What :meth:`open_stream` returned.
        """
        return None

    @property
    def _passes_on(self) -> bool:
        # Of a class that writes samples() anew, what another one says of its own does not hold.
        methods = {"samples", "last_stream"}
        return "last_stream" in next(vars(kind) for kind in type(self).__mro__ if methods & vars(kind).keys())

    def _below(self, seed: Seed) -> Below | None:
        found = self.last_stream() if self._passes_on else None
        if found is None:
            return None
        index, key, stream = found
        key = key or (index,)
        return Below(stream, self._member(index), self._seed.child(seeding.STREAM, *key), index, key)

    def _member(self, index: int) -> Streamer[T_co]:
        """Return the streamer that gave the last sample."""
        return self.streamers[index]

    def _local(self, name: str) -> Any:
        """Return a local variable of :meth:`samples`, which stands between two samples."""
        return cast("Any", self.stream_).gi_frame.f_locals[name]

    def _parts(self) -> Parts:
        streamers = self.streamer if isinstance(self.streamer, list) else [self.streamer]
        return Parts(lambda: [type(self).__qualname__, *self._parameters()], streamers, self._seed_source.own)

    def _parameters(self) -> list[Any]:
        """Return what tells this mux from others of its class, besides its streams; of what JSON knows."""
        return [summary(getattr(self, name, None)) for name in PARAMETERS]

    def generator(self) -> np.random.Generator:
        """Return the generator of this activation's draws."""
        return self._seed.child(seeding.DRAWS).generator()

    @staticmethod
    @contextmanager
    def closing(streams: Iterable[Iterator[Any] | None]) -> Iterator[None]:
        """Close all that is in `streams` when the block is left, also by an exception."""
        try:
            yield
        finally:
            with ExitStack() as stack:  # goes on closing when one of them raises
                for stream in streams:
                    close = getattr(stream, "close", None)
                    if close is not None:
                        stack.callback(close)

    def _activate(self) -> None:
        context = self._context
        assert context is not None
        self._seed: Seed = self._seed_source.resolve(context.seed())
        self._opener: Opener = context.opener.spread(self._n_at_a_time)
        self._early: dict[tuple[int, ...], tuple[Any, Any]] = {}
        self.resumed: Any = self._state and self._state.get("source")
        # How many samples it had given where it goes on.
        self._n_resumed: int = self._state[at(self._state)] if self._state and self.resumed else 0
        # Where the streams stood that the mux had open, by their keys; until they are open again.
        self._resumed: dict[tuple[int, ...], State] = {}
        if self.resumed:
            for key, state in self.resumed.get("streams", ()):
                self._resumed[tuple(key)] = state if isinstance(state, dict) else {"n": state}
        self.stream_ = self.samples()

    def _deactivate(self) -> None:
        with self.closing([stream for _, stream in self._early.values()]):
            super()._deactivate()

    @property
    def _n_at_a_time(self) -> int:
        """How many streams are open at a time."""
        return self.n_streams

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.n_streams} streamers>"


def as_streamer(member: Member[T], position: int) -> Streamer[T]:
    """Return `member` as a Streamer."""
    if isinstance(member, Streamer):
        return member
    try:
        return Streamer(member)
    except PescadorError as error:
        raise ParameterError(f"streamer {position} of a mux: {error}") from None


def check_mode(mode: str, modes: tuple[str, ...], parameter: str = "mode") -> str:
    """Return `mode`, or raise ParameterError if it is not one of `modes`."""
    if mode not in modes:
        raise ParameterError(f"unknown {parameter} {mode!r}; it must be one of {', '.join(modes)}")
    return mode
