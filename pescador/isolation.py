"""What one opening gets of an object in a recipe: the object, a read-only view, or a copy.

- *Immutable* objects (numbers, texts, functions, classes, tuples of such) are passed as they are, and cost
  nothing.
- *Arrays* of NumPy are never copied: a read-only view is passed. The elements of an array of objects are
  shared. Arrays of other libraries (tensors, data frames), which have no read-only views, are shared.
- *Everything else* is copied, with the arrays inside it shared: containers, objects with attributes, random
  generators. A class says with ``__deepcopy__`` what a copy of it is. What is one object in the recipe is one
  object in the opening, too.
- What *cannot be copied* is shared: locks, open files, generators, and what threads communicate by (an event,
  a queue), because nobody would ever set or fill a copy. The object that holds it is copied.
- *Streams* are shared, for they isolate themselves.

It is not :func:`copy.deepcopy`, which copies arrays, and raises where something cannot be copied.
"""

from __future__ import annotations

import copyreg
import datetime
import enum
import functools
import mmap
import operator
import re
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from .opening import Openable

__all__ = ["ATOMS", "Copies", "global_states"]

T = TypeVar("T")
Frozen = TypeVar("Frozen", tuple[Any, ...], frozenset[Any])

ATOMS: Final[set[type]] = {
    *{bool, int, float, complex, str, bytes, range, slice, object, type},
    *{type(None), type(...), type(NotImplemented), types.FunctionType, types.ModuleType, types.CodeType},
    *{datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone},
    *{re.Pattern, mmap.mmap},
    *(set(np.sctypeDict.values()) - {np.void, np.object_}),
}
"""Types of objects that are passed as they are. Subclasses of them may have a state, and do not count.

Those of pathlib come to be here when they are first met, for pescador does not import it.
"""

SHARED: Final = (
    *(Openable, type, types.ModuleType, enum.Enum),
    *(weakref.ref, np.dtype, np.generic),
)
"""Classes whose instances, also of subclasses, are passed as they are."""

CHANNELS: Final = {
    *{"asyncio", "concurrent", "itertools", "logging", "multiprocessing", "queue", "selectors"},
    *{"socket", "sqlite3", "ssl", "subprocess", "threading"},
}
"""Modules of whose objects a copy is of no use: they connect threads, processes or machines, or own one.

Those of itertools are here because Python is giving up copying them, which since 3.12 warns.
"""

FOREIGN: Final = ("__dlpack__", "__array__", "__array_interface__", "__cuda_array_interface__")
"""What arrays of other libraries have, one or the other."""


class Copies:
    """The copies that are made for one opening."""

    def __init__(self) -> None:
        # What the opening gets, by the id of the original, in the order in which copies were begun
        self._memo = global_states().copy()
        # Originals. Some are temporary, and while they are kept, no other object can get their id.
        self._kept: list[object] = []
        self._shares = False  # whether there was anything that cannot be copied

    def own(self, value: T) -> T:
        """Return a value that this opening may change, or that nobody can change."""
        n = len(self._memo)
        try:
            own: T = self._own(value)
            return own
        except RecursionError:  # it is nested too deeply, so it is shared as a whole
            self._forget(n)
            self._memo[id(value)] = value
            return value

    def _own(self, value: Any) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return value
        key = id(value)
        if key in self._memo:
            return self._memo[key]
        self._kept.append(value)
        own = self._memo[key] = _MAKERS.get(kind, Copies._own_object)(self, value)
        return own

    def _forget(self, n: int) -> None:
        """Forget all copies but the first n, so that what they are copies of is shared, or copied anew."""
        while len(self._memo) > n:
            self._memo.popitem()

    # Containers, which are known before their entries, for they may contain themselves

    def _own_list(self, value: list[Any]) -> list[Any]:
        own = self._memo[id(value)] = value.copy()
        kinds = set(map(type, own)) - ATOMS
        if kinds and not (kinds == {tuple} and _are_atoms(_entries_of_tuples(own))):
            for i, entry in enumerate(own):
                own[i] = self._own(entry)
        return own

    def _own_dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        own = self._memo[id(value)] = value.copy()
        if not _are_atoms(own):
            items = list(own.items())
            own.clear()
            own.update([(self._own(key), self._own(entry)) for key, entry in items])
        elif not _are_atoms(own.values()):
            for key, entry in own.items():
                own[key] = self._own(entry)
        return own

    def _own_set(self, value: set[Any]) -> set[Any]:
        own = self._memo[id(value)] = value.copy()
        if not _are_atoms(own):
            entries = list(own)
            own.clear()
            own.update([self._own(entry) for entry in entries])
        return own

    def _own_frozen(self, value: Frozen) -> Frozen:
        """Return a tuple or frozenset: the same one, if nothing in it had to be copied."""
        if _are_atoms(value):
            return value
        entries = list(value)
        own = [self._own(entry) for entry in entries]
        if all(map(operator.is_, own, entries)):
            return value
        # It is known already if it contains itself, by way of something that can be changed.
        return self._memo.get(id(value)) or type(value)(own)

    # Random generators, in half the time that :meth:`_rebuilt` takes, which would seed them first

    def _own_bits(self, value: Any) -> object:
        state = value.__reduce__()[2]
        if isinstance(state, tuple):  # with the seed sequence, since NumPy 1.24
            state = state[0], self._own(state[1])
        own = type(value)(_Unseeded())
        own.__setstate__(state)
        return own

    def _own_random_state(self, value: np.random.RandomState) -> object:
        state = value.get_state(legacy=False)
        if state["bit_generator"] != "MT19937":
            return self._own_object(value)
        key = id(value._bit_generator)
        bits = self._memo[key] = self._memo.get(key) or np.random.MT19937(_Unseeded())  # type: ignore[arg-type]  # as is registered below
        own = np.random.RandomState(bits)
        own.set_state(state)
        return own

    def _own_shallow(self, value: Any) -> object:
        """Return a copy of a container of the module collections, which has a fast copy()."""
        if _are_atoms(value) and (not isinstance(value, dict) or _are_atoms(value.values())):
            return value.copy()
        return self._own_object(value)

    # Arrays

    def _own_array(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        view = array.view()
        view.flags.writeable = False
        return view

    def _own_subclassed_array(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        view = self._own_array(array)
        attributes = getattr(view, "__dict__", {})  # such as the mask of a masked array
        for name, attribute in list(attributes.items()):
            attributes[name] = self._own(attribute)
        return view

    # Objects

    def _own_method(self, method: Any) -> object:
        """Return the method of the owned object."""
        receiver = method.__self__
        own = self._own(receiver)
        if own is receiver:
            return method
        if isinstance(method, types.MethodType):
            return types.MethodType(method.__func__, own)
        return getattr(own, method.__name__)

    def _own_object(self, value: Any) -> object:
        kind = type(value)
        if isinstance(value, np.void):  # a record, which may be written into
            return value.copy()
        if isinstance(value, SHARED):
            return value
        modules = [base.__module__.partition(".")[0] for base in kind.__mro__]
        if "pathlib" in modules:
            if modules[0] == "pathlib":
                ATOMS.add(kind)
            return value
        n = len(self._memo)
        try:
            if isinstance(value, np.ndarray):
                return self._own_subclassed_array(value)
            if any(hasattr(kind, name) for name in FOREIGN):
                return value
            if not any(module in CHANNELS for module in modules):
                if hasattr(kind, "__deepcopy__"):
                    return self._deep_copied(value, kind)
                if not hasattr(kind, "__del__") or not _holds_shared(value):
                    return self._rebuilt(value, kind)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # whatever its class raises, it cannot be copied
            pass
        self._forget(n)
        self._shares = True
        return value

    def _deep_copied(self, value: object, kind: Any) -> object:
        """Return a copy as the class wants it to be made."""
        for attribute in getattr(value, "__dict__", {}).values():
            if isinstance(attribute, np.ndarray):
                self._own(attribute)  # so it is in the memo, and not copied
        return kind.__deepcopy__(value, self._memo)

    def _rebuilt(self, value: object, kind: type) -> object:
        """Return a copy that is made as from a pickle."""
        own: Any
        if isinstance(value, tuple) and not hasattr(value, "__dict__"):  # a named one
            own = [self._own(entry) for entry in value]
            if all(map(operator.is_, own, value)):
                return value
        reduce = copyreg.dispatch_table.get(kind)
        reduced: Any = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        if isinstance(reduced, str):  # the name of a global
            return value
        self._kept.append(reduced)
        parts: list[Any] = [*reduced, *[None] * (6 - len(reduced))]
        make, args, state, entries, items, set_state = parts
        own = make(*[self._own(argument) for argument in args])
        if own is value:  # there is only one
            return value
        self._memo[id(value)] = own
        if state is not None:
            state = self._own(state)
            if set_state is not None:
                set_state(own, state)
            elif hasattr(type(own), "__setstate__"):
                own.__setstate__(state)
            else:
                attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
                if attributes:
                    own.__dict__.update(attributes)
                for name, attribute in (slots or {}).items():
                    object.__setattr__(own, name, attribute)  # also of a frozen class
        for entry in entries or ():
            own.append(self._own(entry))
        for key, entry in items or ():
            own[self._own(key)] = self._own(entry)
        return own


def _are_atoms(values: Iterable[object]) -> bool:
    return ATOMS.issuperset(map(type, values))


def _entries_of_tuples(values: list[Any]) -> Iterator[object]:
    """Return the entries of all tuples in a list, which may be a long one of files and labels."""
    return chain.from_iterable([value for value in values if type(value) is tuple])


def _holds_shared(value: object) -> bool:
    """Whether an object holds something that cannot be copied, and that the finalizer of a copy might end."""
    trial = Copies()
    trial._memo[id(value)] = value
    for part in value.__reduce_ex__(4)[1:]:
        trial._own(part)
    return trial._shares


class _Unseeded:
    """Seeds a generator whose state is set next."""

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[Any]:
        return np.zeros(n_words, dtype)


_MAKERS: Final[dict[type, Callable[[Copies, Any], object]]] = {
    list: Copies._own_list,
    dict: Copies._own_dict,
    set: Copies._own_set,
    **dict.fromkeys((tuple, frozenset), Copies._own_frozen),
    **dict.fromkeys((deque, OrderedDict, defaultdict, Counter), Copies._own_shallow),
    np.ndarray: Copies._own_array,
    **dict.fromkeys((types.MethodType, types.BuiltinMethodType, types.MethodWrapperType), Copies._own_method),
    memoryview: lambda _, view: view.toreadonly(),
}


@functools.cache
def global_states() -> dict[int, Any]:
    """Return the states behind ``np.random.random`` and ``random.random``, which belong to no recipe; by id.

    The first call makes the generators of ``numpy.random`` known here, which NumPy itself imports when it is
    asked for: a program that draws nothing need not wait for it.
    """
    import random  # likewise

    np.random.bit_generator.ISeedSequence.register(_Unseeded)
    kinds = np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64
    _MAKERS.update(dict.fromkeys(kinds, Copies._own_bits))
    _MAKERS[np.random.RandomState] = Copies._own_random_state
    states = np.random.mtrand._rand, random._inst  # type: ignore[attr-defined]  # hidden from stubs
    return {id(state): state for state in states}
