"""Recipes as bytes, the consumer's side.

A recipe is pickled each time that a stream of it opens, so a worker starts from what the recipe is at that
moment. cloudpickle does it, so lambdas, closures and functions of a script or notebook work. What would make
this expensive is not in the pickle: it is sent to each worker once, and referred to by its number. Of the
most frequent recipe, a function and a few atoms, no more is left than plain pickle does with the command.

segments   shared memory with large arrays. All arrays that a recipe is the first to need lie in one
           segment, and so take one descriptor. Workers map it copy-on-write: n workers over an array of 4 GB
           need 4 GB, and what one of them writes nobody else sees.
parts      pickles of what many recipes have in common: collections with many entries, and the functions and
           classes that are pickled with their code; of a function with atoms, also one that is not.

Each is known by the object of which it was made. When it is needed for the first time in an *iteration* (see
:meth:`Recipes.begin`), it is compared with what that object is now, and made anew if that was changed. It is
given up, here and in the workers, when its array is gone, when it was not needed in a whole iteration, or
when too many came after it.

An array in a file that is mapped into memory is not sent: the worker maps the file, too. What of a
recipe goes where is up to :mod:`.recipe_pickler`.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...core import Streamer
from ...exceptions import PescadorError
from ..protocol.script import RecipeData
from ..system.shared_memory import Handle
from .recipe_pickler import is_plain, pickled
from .segments import Array, Place, Segment, contents_of, owner_of, place_of

__all__ = ["Part", "Recipe", "Recipes"]

# What is kept in case that it is needed again. Each segment takes a descriptor.
MAX_SEGMENTS = 32
MAX_PARTS = 256
MAX_PART_BYTES = 1 << 26


class Part:
    """The pickle of an object that recipes have in common; a worker gets it by its `command`."""

    handles: tuple[Handle, ...] = ()

    def __init__(self, number: int, source: object, made: _Pickle, given_up: deque[int]) -> None:
        self.number = number
        self.source = source  # kept, because it is known by its id
        self.data, self.needs = made
        self.command = ("part", number, self.data)
        self.iteration = 0  # in which it was last needed
        self._given_up = given_up

    def __del__(self) -> None:
        self._given_up.append(self.number)


class Recipe(NamedTuple):
    """What a worker makes a stream from, and what it must have in order to do that."""

    data: RecipeData
    needs: tuple[Part | Segment, ...]


_Pickle = tuple[bytes, tuple[Part | Segment, ...]]
"""A pickle, and what a worker must have in order to load it."""


@dataclass(slots=True)
class _Shared:
    """An array that lies in a segment."""

    owner: weakref.ref[Array]  # of its memory: as long as it is there, nothing else can be at that place
    segment: Segment
    offset: int
    iteration: int  # in which it was last compared


class Recipes:
    """The recipes of a pool, and what they have in common. Any thread may use it.

    Parameters
    ----------
    make_segment : callable
        Makes a segment, of its number and the list to which that goes when it is given up.
    """

    def __init__(self, make_segment: Callable[[int, deque[int]], Segment] = Segment) -> None:
        self._make_segment = make_segment
        self._lock = threading.RLock()  # reentrant, because to pickle an object may run any code
        self._numbers = itertools.count(1)
        self._iteration = 0
        self._parts: OrderedDict[int, Part] = OrderedDict()  # by the id of their source; last used last
        self._part_bytes = 0
        self._arrays: dict[Place, _Shared] = {}
        self._segments: OrderedDict[int, Segment] = OrderedDict()  # by number; last used last
        self._new: Segment | None = None  # for the arrays of the recipe that is being made
        # Finalizers append to these, on any thread and at any moment.
        self._gone: deque[Place] = deque()  # arrays
        self.given_up: deque[int] = deque()  # numbers of segments and parts

    def begin(self) -> None:
        """Take note that an iteration begins, before which anything may have been changed."""
        with self._lock:
            for key, part in list(self._parts.items()):
                if part.iteration < self._iteration:
                    self._remove_part(key)
            self._iteration += 1
            self._forget_what_is_gone()

    def make(self, streamer: Streamer[Any]) -> Recipe:
        """Return the recipe of a stream as it is now.

        Raises
        ------
        PescadorError
            If it cannot be pickled, or there is no memory for its arrays.
        """
        with self._lock:
            self._forget_what_is_gone()
            try:
                recipe = self._make(streamer)
            except BaseException as error:
                self._clear()  # what was begun may refer to a segment that was never filled
                if isinstance(error, PescadorError) or not isinstance(error, Exception):
                    raise
                raise PescadorError(
                    f"{streamer!r} cannot be sent to a worker process: {type(error).__name__}: {error}. A "
                    "recipe must be picklable: open files, connections, locks and iterators inside the "
                    "generator function, not in its arguments, or use backend='thread'"
                ) from error
            self._limit()
            return recipe

    def close(self) -> None:
        """Give up everything; workers that have mapped a segment keep it."""
        with self._lock:
            self._clear()

    def _make(self, streamer: Streamer[Any]) -> Recipe:
        try:
            recipe = self._plain(streamer) if is_plain(streamer) else Recipe(*self._pickle(streamer))
        except _Cycle:
            self._clear()
            recipe = Recipe(*self._pickle(streamer, in_parts=False))
        new, self._new = self._new, None
        if new is not None:
            new.fill()
            self._segments[new.number] = new
        return recipe

    def _plain(self, streamer: Streamer[Any]) -> Recipe:
        """Return the recipe of a stream that is made of atoms, but for its function."""
        streamer.check_recipe()
        function = self._part(streamer.streamer, ())
        return Recipe((function.number, streamer.args, streamer.kwargs), (function,))

    def _pickle(self, value: object, within: tuple[object, ...] = (), in_parts: bool = True) -> _Pickle:
        """Pickle an object, which is needed for the parts of the objects `within`."""
        needs: dict[int, Part | Segment] = {}

        def part(source: object) -> int:
            if any(source is other for other in within):
                raise _Cycle
            found = self._part(source, within)
            needs[found.number] = found
            return found.number

        def array(array: Array) -> tuple[int, int]:
            segment, offset = self._array(array)
            needs[segment.number] = segment
            return segment.number, offset

        data = pickled(value, array, part if in_parts else None)
        return data, tuple(needs.values())

    def _forget_what_is_gone(self) -> None:
        while self._gone:
            place = self._gone.popleft()
            shared = self._arrays.get(place)
            if shared is not None and shared.owner() is None:
                self._remove_array(place)

    def _limit(self) -> None:
        while len(self._parts) > MAX_PARTS or (self._part_bytes > MAX_PART_BYTES and len(self._parts) > 1):
            self._remove_part(next(iter(self._parts)))
        while len(self._segments) > MAX_SEGMENTS:
            for place in list(next(iter(self._segments.values())).places):
                self._remove_array(place)

    def _clear(self) -> None:
        self._new = None
        self._parts.clear()
        self._part_bytes = 0
        self._arrays.clear()
        self._segments.clear()

    # Parts

    def _part(self, source: object, within: tuple[object, ...]) -> Part:
        """Return the part of an object."""
        key = id(source)
        part = self._parts.get(key)
        if part is None or part.iteration < self._iteration:
            made = self._pickle(source, (*within, source))
            if part is None or (part.data, part.needs) != made:
                if part is not None:
                    self._remove_part(key)
                part = self._parts[key] = Part(next(self._numbers), source, made, self.given_up)
                self._part_bytes += len(part.data)
            part.iteration = self._iteration
        self._use((part,))
        return part

    def _use(self, needs: Iterable[Part | Segment]) -> None:
        """Take note that these are in use: they, and what they need, are the last to be given up."""
        for need in needs:
            if isinstance(need, Segment):
                if need.number in self._segments:
                    self._segments.move_to_end(need.number)
            elif id(need.source) in self._parts:
                self._parts.move_to_end(id(need.source))
            self._use(need.needs)

    def _remove_part(self, key: int) -> None:
        self._part_bytes -= len(self._parts.pop(key).data)

    # Arrays

    def _array(self, array: Array) -> tuple[Segment, int]:
        """Return the segment in which an array is, and where."""
        place = place_of(array)
        shared = self._arrays.get(place)
        if shared is not None and (shared.owner() is None or not self._is_as_it_was(shared, array)):
            self._remove_array(place)
            shared = None
        if shared is None:
            if self._new is None:
                self._new = self._make_segment(next(self._numbers), self.given_up)
            gone = self._gone
            owner = weakref.ref(owner_of(array), lambda _: gone.append(place))
            offset = self._new.reserve(place, contents_of(array))
            shared = self._arrays[place] = _Shared(owner, self._new, offset, self._iteration)
        self._use((shared.segment,))
        return shared.segment, shared.offset

    def _is_as_it_was(self, shared: _Shared, array: Array) -> bool:
        if shared.iteration == self._iteration:
            return True
        shared.iteration = self._iteration
        return shared.segment.holds(shared.offset, contents_of(array))

    def _remove_array(self, place: Place) -> None:
        found = self._arrays.pop(place).segment
        found.places.discard(place)
        if not found.places:
            self._segments.pop(found.number, None)


class _Cycle(Exception):  # noqa: N818  # no error: the recipe is pickled in one piece then
    """What is being made a part refers to another one that is being made."""
