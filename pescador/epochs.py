"""Epochs: a stream as an iterable whose every iteration is the next epoch.

All epochs belong to one opening of the stream, whose seed is taken when the first one begins. Epoch e is
that of ``cycle()``, under the seed ``(EPOCH, e)``. If an epoch is to be longer than the stream, it goes on
with the next pass over it, and pass k of epoch e has the seed ``(EPOCH, e, EPOCH, k)``. So each can be begun
without those before it, and a state need not say more than the numbers and where the pass stands.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Generator, Iterable
from typing import Any, Generic, TypeVar

from . import seeding
from .checkpoint import load, save
from .checks import optional_number, whole_number
from .core import Streamer
from .describe import shown
from .exceptions import ParameterError, PescadorError
from .iteration import iteration
from .opening import Context, Loaded, State
from .place import OPEN, Place
from .seeding import Seed

__all__ = ["Epochs"]

T_co = TypeVar("T_co", covariant=True)
Self = TypeVar("Self", bound="Epochs[Any]")

FORM = 1  # version of the form of states


class _Epoch(Generic[T_co]):
    """One epoch: one or more passes over the stream, and where it stands.

    Parameters
    ----------
    stream, length
        Those of the Epochs.
    seed : Seed
        That of the opening to which all epochs belong.
    number : int
        Of this epoch.
    start : tuple
        Where it begins: number of the pass, items of the passes before, and state of the stream.
    """

    def __init__(
        self,
        stream: Streamer[T_co],
        length: int | None,
        seed: Seed,
        number: int,
        start: tuple[int, int, State] = (0, 0, {"n": 0}),
    ) -> None:
        self.number = number
        self._stream, self._length, self._seed, self._start = stream, length, seed, start
        self._pass, self._before, state = start
        self._place = self._begin_pass(state)
        self._ended = False

    def anew(self) -> _Epoch[T_co]:
        """Return this epoch, where it began."""
        return _Epoch(self._stream, self._length, self._seed, self.number, self._start)

    def _begin_pass(self, state: State) -> Place:
        seed = self._seed
        if self._pass:
            seed = seed.child(seeding.EPOCH, self.number, seeding.EPOCH, self._pass)
        elif self.number:
            seed = seed.child(seeding.EPOCH, self.number)
        return Place(Loaded(state, seed))

    def items(self) -> Generator[T_co, None, None]:
        """Iterate over the epoch."""
        while True:
            place = self._place
            assert place.seed is not None
            place.active = active = self._stream._bind(Context(place.seed), place.state)
            place.status = OPEN
            active._is_fresh = True
            left = None if self._length is None else self._length - self._before
            yield from iteration(active, left, place)
            if left is None or active.n_given >= left:
                break
            if not active.n_given:
                raise PescadorError(
                    f"an epoch is to have {self._length} items, but after {self._before} of them the stream "
                    f"ended without an item: {self._stream!r}"
                )
            self._before += active.n_given
            self._pass += 1
            self._place = self._begin_pass({"n": 0})
        self._ended = True

    def is_over(self) -> bool:
        """Whether no item is left, also if the iterator was not told yet."""
        if self._ended or self._length is None:
            return self._ended
        state = self._place.save()
        return state is not None and self._before + state["n"] >= self._length

    def state(self) -> State:
        """Return where it stands."""
        return {
            "epoch": self.number,
            "pass": self._pass,
            "before": self._before,
            "stream": save(self._stream, self._place),
        }


class Epochs(Generic[T_co]):
    """A stream as an iterable whose every ``iter()`` is the next epoch.

    Training loops call ``iter(data)`` once an epoch. A Streamer with a whole number as its `random_state`
    then begins the first epoch again; this gives the next one, as :meth:`Streamer.cycle` does.

    Parameters
    ----------
    stream : Streamer or iterable
        Where the items come from. All epochs are one opening of it: a mux whose `random_state` is a
        Generator counts one, and without a `random_state`, NumPy's global state when the first epoch begins
        governs all of them.
    length : int, optional
        Number of items of each epoch, which is also ``len()``. Of a longer stream no more are taken; a
        shorter one begins again within the epoch, under a seed of its own. By default, an epoch is what the
        stream gives, and there is no ``len()``.
    advance : bool
        Whether each ``iter()`` is the next epoch. False gives the same items each time, for validation.

    Attributes
    ----------
    epoch : int
        Number of the epoch that the next ``iter()`` gives.
    stream : Streamer
        As given.

    Notes
    -----
    An epoch that is broken off counts as one. Several iterators may be open, and each
    gives an epoch of its own; :meth:`state_dict` speaks of the one that was made last.

    Examples
    --------
    >>> import pescador
    >>> mux = pescador.ShuffledMux(['abc', 'xyz'], random_state=0)
    >>> epochs = pescador.Epochs(mux, 4)
    >>> [''.join(epoch) for epoch in (epochs, epochs, epochs)]
    ['xayb', 'xaby', 'xayz']
    >>> epochs.set_epoch(1)
    >>> len(epochs), ''.join(epochs)
    (4, 'xaby')
    """

    def __init__(
        self, stream: Streamer[T_co] | Iterable[T_co], length: int | None = None, *, advance: bool = True
    ) -> None:
        self.stream: Streamer[T_co] = stream if isinstance(stream, Streamer) else Streamer(stream)
        self.length = optional_number(length, "length", 1)
        self.advance = advance
        self.epoch = 0
        self._seed: Seed | None = None  # of the opening, from the first iter() on
        self._resumed: _Epoch[T_co] | None = None  # with which the next iter() begins
        self._last: _Epoch[T_co] | None = None
        self._open: weakref.ref[Generator[T_co, None, None]] | None = None

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("these Epochs have no len(): give a length, as in Epochs(stream, 1000)")
        return self.length

    def __iter__(self) -> Generator[T_co, None, None]:
        with seeding.lock:
            if self._seed is None:
                self._seed = self.stream._next_context().seed()
            self._last = self._resumed or _Epoch(self.stream, self.length, self._seed, self.epoch)
            self._resumed = None
            self.epoch += self.advance
            items = self._last.items()
            self._open = weakref.ref(items)
        return items

    def set_epoch(self, epoch: int) -> None:
        """Let the next ``iter()`` give an epoch of this number.

        Frameworks call it before each epoch. If that is the epoch of which a state was loaded, it still goes
        on from there. With ``advance=False`` it does nothing, because some call it for validation, too.
        """
        epoch = whole_number(epoch, "epoch", 0)
        if not self.advance or epoch == self.epoch:
            return
        self.epoch, self._resumed = epoch, None
        if not self._is_open():
            self._last = None

    def rewind(self) -> None:
        """Let the next ``iter()`` give the last epoch again (for adaptors: Keras tries an item first)."""
        if self._last is not None:
            self._resumed, self.epoch, self._last = self._last.anew(), self._last.number, None

    def state_dict(self) -> State:
        """Return where the epoch that was begun last stands, also if it was broken off.

        Returns
        -------
        state : dict
            Of what JSON knows. If that epoch is over, or none was begun, it is the beginning of the next one.

        Raises
        ------
        PescadorError
            If the stream raised, reads from an open iterator, or is producing an item at this moment.
        """
        epoch = self._last if self._last is not None and not self._last.is_over() else self._resumed
        if epoch is None and self._seed is not None:
            epoch = _Epoch(self.stream, self.length, self._seed, self.epoch)
        if epoch is not None:
            return {"form": FORM, **epoch.state()}
        return {
            "form": FORM,
            "epoch": self.epoch,
            "pass": 0,
            "before": 0,
            "stream": save(self.stream, Place()),
        }

    def load_state_dict(self, state: State) -> None:
        """Let the next ``iter()`` go on from a state.

        Parameters
        ----------
        state : dict
            What :meth:`state_dict` returned, of a stream that was made in the same way.

        Raises
        ------
        PescadorError
            If it is of another stream, another seed, or another version.
        """
        if not isinstance(state, dict) or not {"form", "epoch", "pass", "before", "stream"} <= state.keys():
            raise ParameterError(
                f"a state of Epochs is the dict that state_dict() returned, not {shown(state)}"
            )
        if state["form"] != FORM:
            raise ParameterError(
                f"this state of Epochs has another form ({state['form']}, here {FORM}). Go on with the "
                "version of pescador that saved it, or begin anew"
            )
        loaded = load(self.stream, state["stream"])
        self.epoch = state["epoch"]
        self._last = self._resumed = self._seed = None
        if loaded is not None and loaded.seed is not None and loaded.state is not None:
            self._seed = loaded.seed.root
            start = state["pass"], state["before"], loaded.state
            self._resumed = _Epoch(self.stream, self.length, self._seed, self.epoch, start)

    def _is_open(self) -> bool:
        items = None if self._open is None else self._open()
        return items is not None and inspect.getgeneratorstate(items) != inspect.GEN_CLOSED

    def close(self) -> None:
        """Close the iterator that was made last, and a ParallelStreamer that was given as the stream."""
        items = None if self._open is None else self._open()
        if items is not None:
            with contextlib.suppress(ValueError):  # it runs on another thread
                items.close()
        if hasattr(self.stream, "close"):
            self.stream.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "_open": None}  # they hold what is open

    def __repr__(self) -> str:
        length = "" if self.length is None else f", {self.length}"
        return f"Epochs({self.stream!r}{length}{'' if self.advance else ', advance=False'})"
