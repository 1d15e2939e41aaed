"""States: where a stream stands, so that it goes on from there in another process.

Everything that is drawn follows from a seed, so a state is small. It says, for each stream of the tree that
is open now, what is needed to open it again where it stands (:data:`pescador.opening.State`):

- A mux goes on where it stood in its sequences, with the streams that it has open, each where it stood.
- A stateless map (see :func:`pescador.stateless`) is called anew, with its streams where they stood.
- A generator that takes :data:`pescador.START` is called with the number of items that it gave.
- Anything else is opened anew, and gives so many items, which are dropped. It has to give the same items for
  the same seed.

Around that is an *envelope*: of which tree, under which seed, and by which versions it was saved. A
ParallelStreamer leaves no trace in it: where a stream runs makes no difference.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from itertools import compress, islice, repeat
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from .arguments import is_stateless
from .describe import shown
from .exceptions import ParameterError, PescadorError
from .fingerprint import Parts, fingerprint, parts_of_recipe
from .isolation import ATOMS, Copies
from .iteration import Items, saved
from .opening import Loaded, Openable, RepeatedContext, State, at
from .origin import Below, Origin, origin_of
from .place import CLOSED, ENDED, OPEN, Place
from .seeding import Seed

if TYPE_CHECKING:
    from .mux.weighted import WeightedMux

__all__ = ["SEQUENCES", "Resumable", "changed_weights", "not_restartable"]


FORM: Final = 1
"""Version of the form of states."""
SEQUENCES: Final = 1
"""Version of the sequences that seeds give: raise it with every change of what any seed gives."""

KEYS: Final = frozenset({
    *("form", "sequences", "pescador", "numpy", "tree", "seeds"),
    *("entropy", "path", "numbers", "weights", "state"),
})  # fmt: skip
"""What a state of this form has."""

changed_weights: weakref.WeakSet[Any] = weakref.WeakSet()
"""The weights of muxes that are not those with which they were made."""


class Resumable(Openable):
    """What a Streamer has to do with states, and with origins, see :mod:`pescador.origin`."""

    streamer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    stream_: Iterator[Any] | None
    _is_transparent = False  # whether it only runs another stream, so that no state or origin knows it
    _loaded: Loaded | None = None  # where the next iteration begins
    _place: Place | None = None  # where the last one stands
    # Of activated copies:
    _state: State | None = None  # what it begins with
    _has_begun = False
    _counter: Any = None  # knows how many items it gave
    _arguments: Sequence[Any] = ()  # the streams among its arguments
    _seeks = False  # whether it was told by START which item comes next
    _restarts = False  # whether it was found that nothing here or below reads from an open iterator

    def state_dict(self) -> State:
        """Return where the iteration that was begun last stands, also if it was broken off or has ended.

        From there it goes on with exactly the item that would have come next: in another process, on another
        backend, with another number of workers. Streams that are made again have to give the same items for
        the same seed, see :mod:`pescador.checkpoint`.

        Returns
        -------
        state : dict
            Of what JSON knows. If no iteration was begun, or the last one has ended, the next one begins
            anew.

        Raises
        ------
        PescadorError
            If the stream raised, reads from an open iterator, or is producing an item at this moment.
        """
        return self._state_of(self._place or Place(self._loaded))

    def _state_of(self, place: Place) -> State:
        return save(self, place)

    def load_state_dict(self, state: State) -> None:
        """Let the next iteration, by ``iterate()`` or ``cycle()``, go on from a state.

        Parameters
        ----------
        state : dict
            What :meth:`state_dict` returned, of a stream that was made in the same way. A `max_iter` counts
            from the very beginning, also of items that were given before.

        Raises
        ------
        PescadorError
            If it is of another stream, another seed, or another version of states or sequences.
        """
        self._place, self._loaded = None, load(self, state)

    @property
    def n_given(self) -> int:
        """How many items an activated copy gave."""
        return sys.maxsize - length_hint(self._counter) if self._has_begun else 0

    def _counted(self, max_iter: int | None) -> Iterator[Any]:
        """Return an iterator over the items of an activated copy that are due, which counts them."""
        state = self._state
        self._has_begun = True
        stream = cast("Iterator[Any]", self.stream_)
        if state is None:
            counted, n = self._counting(stream, 0), 0
        else:
            n = state["n"]
            if max_iter is not None and max_iter <= n:  # nothing is due, so the source is not even begun
                return Resumable._counting(self, islice(stream, 0), n)
            known = state[at(state)] if "source" in state else n if self._seeks else 0
            counted = self._counting(stream, known)
            self._drop(counted, n, known)
        return counted if max_iter is None else islice(counted, max(max_iter - n, 0))

    def _drop(self, stream: Iterator[Any], n: int, known: int) -> None:
        """Take the items that were given before, from the one on with which the source begins."""
        dropped = sum(1 for _ in islice(stream, n - known))
        if dropped < n - known:
            raise PescadorError(
                f"{self!r} cannot go on from its state: it had given {n} items when that was saved, and ends "
                f"after {known + dropped} now. A stream that goes on has to give the same items again: does "
                "what it reads differ, or does it draw from a generator without a seed?"
            )

    def _counting(self, stream: Iterator[Any], n: int) -> Iterator[Any]:
        """Return an iterator over the items of a stream after the first n, of which :attr:`n_given` knows."""
        self._counter = repeat(True, sys.maxsize - n)
        return compress(stream, self._counter)

    def _save(self) -> State:
        """Return where an activated copy stands, between two items."""
        if not self._has_begun:
            return self._state or {"n": 0}
        source = self._save_source()
        return {"n": self.n_given} if source is None else {"n": self.n_given, "source": source}

    def _since(self, snapshot: State | None, n: int) -> State:
        """Return where it stands after n items, of which those after a snapshot are made again."""
        if snapshot is None or "source" not in snapshot:
            return {"n": n}
        return {"n": n, "at": snapshot[at(snapshot)], "source": snapshot["source"]}

    def _save_source(self) -> Any:
        """Return what the source of an activated copy needs to go on; None: its items are made again."""
        if isinstance(self.streamer, Resumable):
            return saved(self.stream_)
        if self._arguments and is_stateless(self.streamer, self.args):
            self._check_source()
            return [argument._save_argument() for argument in self._arguments]
        self.check_restartable()
        return None

    def check_restartable(self) -> None:
        """Raise PescadorError if this stream, or one below it, reads from an open iterator."""
        if not self._restarts:
            self._check_source()
            for member in self._parts().members:
                member.check_restartable()
            self._restarts = True

    def _check_source(self) -> None:
        """Raise PescadorError if this stream itself reads from an open iterator."""
        if isinstance(self.streamer, Iterator):
            raise not_restartable(self.streamer, "saved where it stands")
        for value in (*self.args, *self.kwargs.values()):
            if type(value) in ATOMS or not isinstance(value, Iterator):
                continue
            if Copies().own(value) is value:  # some can be copied (that of a list), and begin anew each time
                raise not_restartable(value, "saved where it stands")

    def _save_argument(self) -> list[Any]:
        """Return where a stream among the arguments of another stands: number of the opening, and state."""
        place = self._place or Place(self._loaded)
        state = None if place.status == CLOSED else place.save()
        number = place.number if place.status == OPEN else cast("RepeatedContext", self._context).number
        return [number] if state is None and place.status != ENDED else [number, state]

    def _parts(self) -> Parts:
        """Return what tells this stream from others, and the streams below it."""
        return parts_of_recipe(self.streamer, self.args, self.kwargs)

    def _origin_of(self, items: Items[Any]) -> Origin:
        return origin_of(items, self)

    @property
    def _passes_on(self) -> bool:
        """Whether its items may be those of a stream below it, as they are."""
        return isinstance(getattr(self.streamer, "__self__", self.streamer), Resumable)

    def _below(self, seed: Seed) -> Below | None:
        """Return from which stream the last item of an activated copy came; None if it made it itself.

        `seed` is that with which the copy was opened.
        """
        if not self._passes_on:
            return None
        source = self.streamer  # a stream, or a method of one, such as ``mux.cycle``
        return Below(self.stream_, getattr(source, "__self__", source), seed)


def save(stream: Resumable, place: Place) -> State:
    """Return where an iteration over a stream stands, for :func:`load`."""
    if isinstance(stream._context, RepeatedContext):
        raise PescadorError(
            f"{stream!r} is among the arguments of another stream, so its state is part of that one's: ask "
            "the outermost stream, or the iterator over it"
        )
    state, seed = place.save(), place.seed
    numbers = [source.number for source in stream._sources]
    if state is not None and seed is not None:
        counted = seed.numbers or {}
        numbers = [counted[source.key] for source in stream._sources]
    tree, seeds = fingerprint(stream)
    return {
        "form": FORM,
        "sequences": SEQUENCES,
        "pescador": sys.modules[__package__].__version__,
        "numpy": np.__version__,
        "tree": tree,
        "seeds": seeds,
        "entropy": None if state is None or seed is None else seed.settled(),
        "path": list(seed.path) if seed is not None else [],
        "numbers": numbers,
        "weights": _changed(stream),
        "state": state,
    }


def load(stream: Resumable, saved: State) -> Loaded | None:
    """Return where an iteration begins that goes on from what :func:`save` returned."""
    is_state = isinstance(saved, dict) and "form" in saved
    if not is_state or (saved["form"] == FORM and KEYS - saved.keys()):
        raise ParameterError(f"a state is the dict that state_dict() returned, not {shown(saved)}")
    by = f"this state was saved by pescador {saved.get('pescador')}"
    if saved["form"] != FORM:
        raise ParameterError(
            f"{by}, which saves states in another form ({saved['form']}, here {FORM}). Go on with that "
            "version of pescador, or begin anew"
        )
    if saved["sequences"] != SEQUENCES:
        raise ParameterError(
            f"{by}, in which a seed gives another sequence (version {saved['sequences']}, here {SEQUENCES}), "
            "so that other items would come. Go on with that version of pescador, or begin anew"
        )
    tree, seeds = fingerprint(stream)
    if saved["tree"] != tree:
        raise ParameterError(
            f"this state is not of {stream!r}, but of a stream with another generator function, argument, "
            "number or name of streams, weights, or parameter of a mux. Make the stream as it was made when "
            "the state was saved (are the files in the same order?), or begin anew"
        )
    if saved["seeds"] != seeds:
        raise ParameterError(
            f"this state was saved under another random_state than that of {stream!r}. Give its muxes the "
            "same whole numbers as then (a Generator without a seed is another one in each process), or begin"
            " anew"
        )
    if saved["numpy"].split(".")[:2] != np.__version__.split(".")[:2]:
        import logging  # for this alone

        logging.getLogger("pescador").warning(
            "a state that was saved with NumPy %s goes on with NumPy %s, whose random numbers may differ",
            saved["numpy"],
            np.__version__,
        )
    _restore_weights(stream, saved["weights"])
    going_on = saved["state"] is not None
    for source, number in zip(stream._sources, saved["numbers"], strict=True):
        source.number = number + going_on
    if not going_on:
        return None
    numbers = {source.key: number for source, number in zip(stream._sources, saved["numbers"], strict=True)}
    return Loaded(saved["state"], Seed.restored(saved["entropy"], saved["path"], numbers))


def _changed(stream: Resumable) -> list[Any]:
    """Return the weights in a tree with which its muxes were not made, and the way to each."""
    if not changed_weights:
        return []
    found = []
    for path, mux in _muxes(stream):
        if mux._weights in changed_weights:
            found.append([path, None if mux.weights is None else mux.weights.tolist()])
    return found


def _restore_weights(stream: Resumable, found: list[Any]) -> None:
    """Give all muxes in a tree the weights that they had when a state was saved."""
    if not found and not changed_weights:
        return
    given = {tuple(path): weights for path, weights in found}
    for path, mux in _muxes(stream):
        weights = given.get(tuple(path), mux._weights.original)
        if mux._weights in changed_weights or weights is not mux._weights.original:
            mux.weights = weights
        mux._weights.settled = mux._weights.values


def _muxes(stream: Resumable) -> Iterator[tuple[list[int], WeightedMux[Any]]]:
    """Yield all muxes of a tree that have weights, and the way to each; one that is there often only once."""
    seen: set[int] = set()
    left: list[tuple[list[int], Resumable]] = [([], stream)]
    while left:
        path, stream = left.pop()
        parts = stream._parts()
        if id(parts.weighted or stream) in seen:
            continue
        seen.add(id(parts.weighted or stream))
        if parts.weighted is not None:
            yield path, parts.weighted
        left.extend(([*path, i], member) for i, member in enumerate(parts.members))


def not_restartable(source: object, what: str) -> PescadorError:
    """Return what to raise for a stream that reads from an open iterator."""
    return PescadorError(
        f"a Streamer of {shown(source)} cannot be {what}: an open iterator has no recipe to start it again. "
        "Give the function and its arguments instead: Streamer(buffer_stream, stream, 16), not "
        "Streamer(buffer_stream(stream, 16))"
    )
