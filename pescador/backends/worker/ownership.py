"""Which parts of an item its generator still holds, so that it may write to them when it goes on.

A worker must copy what is held before its generator goes on, and should copy nothing else. Threads hand the
item itself to the consumer, and :meth:`Ownership.private` copies what is held. Processes copy every item, but
for arrays that were made in shared memory and that nobody else refers to: :meth:`Ownership.sole` finds those.

Python's reference counts tell. When a generator has yielded, the references to a part of an item are that of
the item, those of the functions through which the item passes here, and those of whoever holds the part. How
many the functions have depends on the version of Python and on the functions themselves, so it is measured:
before its first stream, a worker sends an item that nobody holds (:meth:`.loop.WorkerLoop.probe`). With its
counts those of every later item are compared. So a loop has one :class:`Ownership`, and calls the same method
of it, at the same place and on the thread that runs its generators, for the probe and for all items.

Invariant: a part is taken for private only if nobody else can write to it. That is so if the item, the part
and the array that the part views, if any, have as many references as those of the probe. Hence

- a part counts as held if there is one reference more to any of the three. To count too many costs a copy; to
  count too few is impossible, for whoever may write has a reference;
- a part that views something other than an array is held, for nobody can tell who else uses that memory;
- whatever lies in a container or an object that is held is held, too.

It does not hold for compiled code that keeps a bare pointer, nor for other threads of a generator that get at
an item after it was yielded.
"""

from __future__ import annotations

import array
import contextlib
import copy
import functools
import sys
from collections import deque
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..protocol import tensors

__all__ = ["Ownership"]


def references(parts: Sequence[Any]) -> list[tuple[int, int]]:
    """Return how many references there are to each of some parts of an item, and to what it views."""
    return [(sys.getrefcount(part), sys.getrefcount(getattr(part, "base", None))) for part in parts]


class Ownership:
    """Knows how many references there are to what nobody but a worker's loop refers to.

    Attributes
    ----------
    copied : int
        Bytes of arrays that :meth:`private` has copied so far.
    """

    def __init__(self) -> None:
        self.copied = 0
        self._n_copies = 0  # of arrays, and of what is like them
        self._copied_in: set[int] = set()  # ids of parts of this item in which there are such
        # The counts of the probe: of the item, of its array, and of what that views; 0 before the probe.
        self._sole_item = 0
        self._sole = self._sole_base = 0

    def _learn(self, n_item: int, parts: Sequence[Any]) -> None:
        """Take the counts of the probe, whose one part is an array that views another."""
        self._sole_item = n_item
        ((self._sole, self._sole_base),) = references(parts)

    def sole(self, item: Any, parts: Sequence[Any]) -> set[int]:
        """Return the ids of those parts to which nobody else refers, nor to the arrays that they view.

        Parameters
        ----------
        item : dict
        parts : sequence
            Its values.
        """
        n_item = sys.getrefcount(item)
        if not self._sole_item:
            self._learn(n_item, parts)
        if n_item != self._sole_item:
            return set()
        return {
            id(part)
            for part, (n, n_base) in zip(parts, references(parts), strict=True)
            if n == self._sole and (n_base == self._sole_base or getattr(part, "base", part) is None)
        }

    def private(self, item: Any) -> Any:
        """Return an item with copies of all arrays to which somebody else refers.

        It may be anything. A container that is held becomes a shallow copy, and so does an object that is
        held and in which there are arrays; all else is what it was.
        """
        n_item = sys.getrefcount(item)
        if not self._sole_item:
            self._learn(n_item, list(item.values()))
            return item
        held = n_item != self._sole_item
        if type(item) is dict and not held and self._has_nothing_shared(list(item.values())):
            return item
        n_base = references([item])[0][1] if isinstance(item, np.ndarray) else 0
        self._copied_in.clear()
        try:
            return item if type(item) in ATOMS else self._private(item, held, n_base, {})
        except RecursionError:  # too deep to be looked through
            return item

    def _has_nothing_shared(self, parts: list[Any]) -> bool:
        """Whether all parts are surely private: a quick test for what most items are like."""
        sole = self._sole
        for part, (n, n_base) in zip(parts, references(parts)):  # noqa: B905  # strict=True takes longer
            if type(part) is np.ndarray:
                if n != sole or part.dtype.hasobject:
                    return False
                if (part.base is not None or not part.flags.behaved) and self._is_shared(part, n_base):
                    return False
            elif type(part) not in ATOMS:
                return False
        return True

    def _private(self, value: Any, held: bool, n_base: int, memo: dict[int, Any]) -> Any:
        if type(value) is np.ndarray and not value.dtype.hasobject:
            return self._copy(value) if held or self._is_shared(value, n_base) else value
        if id(value) in memo:
            self._n_copies += id(value) in self._copied_in
            return memo[id(value)]
        n_copies = self._n_copies
        memo[id(value)] = value
        mine = memo[id(value)] = self._private_other(value, held, n_base, memo)
        if self._n_copies != n_copies:
            self._copied_in.add(id(value))
        return mine

    def _private_other(self, value: Any, held: bool, n_base: int, memo: dict[int, Any]) -> Any:
        """Do the same for what is no plain array; what refers to itself finds in `memo` what it becomes."""
        kind: Any = type(value)
        if isinstance(value, _CONTAINERS):
            return self._private_container(value, held, memo)
        if isinstance(value, tuple):
            return self._private_tuple(value, held, memo)
        if isinstance(value, np.ndarray):
            return self._private_array(value, held or self._is_shared(value, n_base), memo)
        if isinstance(value, _BUFFERS):
            return self._counted(copy.copy(value)) if held else value
        if isinstance(value, np.void):
            return self._counted(value.copy())  # it is a view of its array
        if isinstance(value, set):
            return copy.copy(value) if held else value
        if isinstance(value, _OPAQUE):
            return value
        if tensors.is_tensor(value):
            return self._counted(tensors.private(value))
        if _is_array_like(kind):
            return self._counted(_deep_copy(value))
        return self._private_object(value, held, memo)

    def _is_shared(self, value: Any, n_base: int) -> bool:
        """Whether somebody else may use the memory of an array, or its consumer can't as it should."""
        base = value.base
        if base is not None and (
            n_base != self._sole_base or type(base) is not np.ndarray or base.base is not None
        ):
            return True
        return not value.flags.behaved  # aligned and writeable

    def _copy(self, value: Any) -> Any:
        self.copied += value.nbytes
        return self._counted(value.copy("F" if value.flags.fnc else "C"))

    def _counted(self, mine: Any) -> Any:
        self._n_copies += 1
        return mine

    def _private_parts(self, parts: list[Any], held: bool, memo: dict[int, Any]) -> list[Any] | None:
        """Return the parts as they are to be sent; None if all are as they were."""
        if ATOMS.issuperset(map(type, parts)):
            return None
        sole, changed = self._sole, False
        for i, (n, n_base) in enumerate(references(parts)):
            part = parts[i]
            if type(part) not in ATOMS:
                mine = self._private(part, held or n != sole, n_base, memo)
                if mine is not part:
                    parts[i] = mine
                    changed = True
        return parts if changed else None

    def _private_container(self, value: Any, held: bool, memo: dict[int, Any]) -> Any:
        mine = memo[id(value)] = copy.copy(value) if held else value
        is_dict = isinstance(value, dict)
        parts = self._private_parts(list(value.values() if is_dict else value), held, memo)
        if parts is not None:
            for key, part in zip(list(value) if is_dict else range(len(parts)), parts, strict=True):
                mine[key] = part
        return mine

    def _private_tuple(self, value: Any, held: bool, memo: dict[int, Any]) -> Any:
        parts = self._private_parts(list(value), held, memo)
        if parts is None:
            return value
        mine = tuple.__new__(type(value), parts)
        if hasattr(mine, "__dict__"):
            vars(mine).update(vars(value))
        return mine

    def _private_array(self, value: Any, shared: bool, memo: dict[int, Any]) -> Any:
        """Return an array of objects, or of a subclass, which may have attributes."""
        if value.dtype.hasobject and value.dtype.names:
            return self._counted(_deep_copy(value))
        if isinstance(value, np.ma.MaskedArray):
            return self._copy(value)  # also its mask, of which one can't tell so easily
        mine = memo[id(value)] = self._copy(value) if shared else value
        if value.dtype.hasobject:
            parts = self._private_parts(list(value.flat), shared, memo)
            if parts is not None:
                for index, part in zip(np.ndindex(value.shape), parts, strict=True):
                    mine[index] = part
        if type(value) is not np.ndarray:
            self._give_attributes(value, mine, shared, memo)
        return mine

    def _private_object(self, value: Any, held: bool, memo: dict[int, Any]) -> Any:
        """Return an object, or a copy of it if it is held and there are arrays in it."""
        mine = memo[id(value)] = _blank(value) if held else value
        if mine is not None and self._give_attributes(value, mine, held, memo):
            return mine
        return value

    def _give_attributes(self, value: Any, mine: Any, held: bool, memo: dict[int, Any]) -> bool:
        """Give `mine` the attributes of `value` if there is an array in them that had to be copied."""
        places, attributes = _attributes(value)
        n_copies = self._n_copies
        parts = self._private_parts(attributes, held, memo)
        if parts is None or n_copies == self._n_copies:
            return False
        for place, part in zip(places, parts, strict=True):
            if isinstance(place, str):
                vars(mine)[place] = part
            else:
                place.__set__(mine, part)
        return True


def _deep_copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # it can't be copied, so it is shared
        return value


def _blank(value: Any) -> Any:
    """Return an object of the same type that has no attributes yet; None if there can be none.

    None of the type's own code is run for that.
    """
    try:
        return object.__new__(type(value))
    except TypeError:  # it is made by compiled code
        return None


def _attributes(value: Any) -> tuple[list[Any], list[Any]]:
    """Return where the attributes of an object are (names, and descriptors of slots), and what they are.

    To these, nobody refers more than before.
    """
    kind: Any = type(value)
    places: list[Any] = []
    values: list[Any] = []
    if kind.__dictoffset__ and type(vars(value)) is dict:
        places += vars(value)
        values += vars(value).values()
    for slot in _slots(kind):
        with contextlib.suppress(AttributeError):  # there is nothing in it
            values.append(slot.__get__(value))
            places.append(slot)
    return places, values


@functools.lru_cache(maxsize=1024)
def _slots(kind: Any) -> list[Any]:
    """Return the descriptors of the attributes that are not in the dict of an object."""
    return [
        descriptor
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for descriptor in vars(base).values()
        if isinstance(descriptor, MemberDescriptorType)
    ]


@functools.lru_cache(maxsize=1024)
def _is_array_like(kind: Any) -> bool:
    """Whether it is a tensor, table or image of another library, which may share its memory."""
    return any(hasattr(kind, name) for name in ("__array__", "__array_interface__", "__dlpack__"))


ATOMS = frozenset(
    [type(None), bool, int, float, complex, str, bytes, type(...), range]
    + [np.dtype(code).type for code in "?bhilqpBHILQPefdgFDGSUMm"]
)
"""Types of which nothing can be written to."""

_CONTAINERS = (dict, list, deque)
_BUFFERS = (bytearray, array.array)
_OPAQUE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, frozenset, np.generic)
