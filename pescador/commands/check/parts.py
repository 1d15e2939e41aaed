"""What a stream, or an item, is made of: its parts, with the path that leads to each.

The parts of a stream are the streams below it, the arguments and what is in them, and what its generator
functions refer to in another way: closures, defaults, globals. Code of libraries is not looked into, nor is
what is in sets. All walks are bounded, so that a mux of a million streams takes no longer than one of some
thousands.
"""

from __future__ import annotations

import os
import random
import stat
import sysconfig
import types
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from ...backends.consumer.recipe_pickler import pickled
from ...backends.protocol.errors import describe_error
from ...backends.protocol.pickling import dump
from ...core import Streamer
from ...isolation import global_states
from ...opening import START
from ...seeding import RNG
from .code import Reference, references

__all__ = [
    "Change",
    "Culprit",
    "State",
    "View",
    "changes",
    "find_culprit",
    "is_library",
    "parts",
    "references_of",
    "snapshot",
    "view_in",
    "walk",
]

MAX_PARTS: Final = 20_000  # of one walk
MAX_ENTRIES: Final = 2_000  # of one container
MAX_HASHED_BYTES: Final = 1 << 24  # of one array
MAX_PATH: Final = 1000  # characters of a text that may be the name of a file
MAX_ITEM_PARTS: Final = 1000
MIN_DRAGGED: Final = 1 << 20  # bytes that an item keeps in memory for nothing
MAX_DEPTH: Final = 50  # of what cannot be pickled

_SCALARS: Final = (int, float, complex, str, bytes, type(None), np.generic)
_GENERATORS: Final = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_LIBRARIES: Final = (
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    str(Path(__file__).parents[2]) + os.sep,  # pescador
    "<frozen",
)


def is_library(filename: str) -> bool:
    """Whether code of this file is of Python, of an installed package or of pescador, and not the user's."""
    return filename.startswith(_LIBRARIES)


def walk(root: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield all parts of an object with their paths, itself first, and those that are near before others."""
    seen: dict[int, Any] = {}  # which keeps those that are temporary, so that no other gets their id
    ahead = deque([(path, root)])
    for _ in range(MAX_PARTS):
        if not ahead:
            return
        path, value = ahead.popleft()
        if not isinstance(value, _SCALARS):
            if id(value) in seen:
                continue
            seen[id(value)] = value
        yield path, value
        ahead.extend(parts(path, value))


def parts(path: str, value: Any) -> list[tuple[str, Any]]:
    """Return what an object is made of, with paths: nothing, if its class raises when it is looked at."""
    try:
        return list(_parts(path, value))
    except Exception:
        return []


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Streamer):
        yield f"{path}.streamer{'s' * isinstance(value.streamer, list)}", value.streamer
        yield from ((f"{path}.{name}", getattr(value, name)) for name in ("args", "kwargs"))
        yield from _methods(value)
    elif isinstance(value, types.FunctionType):
        if hasattr(value, "__wrapped__"):
            yield value.__wrapped__.__qualname__, value.__wrapped__
        if not is_library(value.__code__.co_filename):
            yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        if id(value.__self__) not in global_states():
            yield f"{path}.__self__", value.__self__
        yield path, value.__func__
    elif isinstance(value, partial):
        yield from ((f"{path}.{name}", getattr(value, name)) for name in ("func", "args", "keywords"))
    elif isinstance(value, dict | list | tuple | deque):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        yield from ((f"{path}[{key!r:.50}]", entry) for key, entry in list(islice(entries, MAX_ENTRIES)))
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            yield from _parts(f"{path}.flat", value.ravel().tolist())
    elif not isinstance(value, (*_SCALARS, type, types.ModuleType)):
        yield from _attributes(path, value)
        yield from _methods(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    name, code, defaults = function.__qualname__, function.__code__, function.__defaults__ or ()
    arguments = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for variable, value in (*zip(arguments, defaults, strict=True), *(function.__kwdefaults__ or {}).items()):
        yield f"{variable} (a default of {name})", value
    for variable, value, _ in references(function):
        if isinstance(value, types.FunctionType):
            yield value.__qualname__, value
        elif not isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            is_free = variable.partition(".")[0] in code.co_freevars
            how = "in the closure of" if is_free else "a global that is used by"
            yield f"{variable} ({how} {name})", value


def _attributes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f"{path}.{name}", part) for name, part in list(getattr(value, "__dict__", {}).items()))
    for kind in type(value).__mro__:
        for name, slot in list(vars(kind).items()) if "__slots__" in vars(kind) else ():
            if isinstance(slot, types.MemberDescriptorType):
                with suppress(AttributeError):  # it is empty
                    yield f"{path}.{name}", slot.__get__(value)


def _methods(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the functions that make the items of a mux, or of an object that is called or iterated over."""
    for name in ("samples", "__call__", "__iter__", "__getitem__"):
        method = getattr(type(value), name, None)
        if isinstance(method, types.FunctionType):
            yield method.__qualname__, method


def references_of(root: Any) -> Iterator[Reference]:
    """Yield what the user's code among the parts of an object refers to."""
    for _, part in walk(root, ""):
        if isinstance(part, types.FunctionType) and not is_library(part.__code__.co_filename):
            yield from references(part)


class View(NamedTuple):
    """An array of an item that is a part of a much larger one."""

    path: str
    n_bytes: int
    n_bytes_behind: int


def view_in(items: list[Any], stream: Any) -> View | None:
    """Return the first array of items that keeps a large one in memory, which the recipe does not keep."""
    known = {id(_owner(part)) for _, part in walk(stream, "") if isinstance(part, np.ndarray)}
    for item in items:
        for path, part in islice(walk(item, "item"), MAX_ITEM_PARTS):
            if isinstance(part, np.ndarray):
                whole = _owner(part)
                is_kept_anyway = id(whole) in known or isinstance(whole, np.memmap)
                if whole.nbytes - 2 * part.nbytes >= MIN_DRAGGED and not is_kept_anyway:
                    return View(path, part.nbytes, whole.nbytes)
    return None


def _owner(array: Any) -> Any:
    """Return the array whose memory an array shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


# What has changed


class State(NamedTuple):
    """What a part is at some time. What it holds are parts of their own."""

    text: str
    token: object = None  # what is compared besides the text
    kind: Literal["file", "generator", ""] = ""  # of a part that is the name of a file, or a random generator


class Change(NamedTuple):
    """A part that is not what it was."""

    path: str
    old: State
    new: State

    def __str__(self) -> str:
        if self.old.text == self.new.text:
            return f"{self.path}, which is {self.old.text}, and has changed"
        return f"{self.path}, which was {self.old.text}, and is {self.new.text}"


def snapshot(root: Any, path: str) -> dict[str, State]:
    """Return what all parts of an object are now, by path, to be compared with what they are later."""
    return {
        inner: _state(value) for inner, value in walk(root, path) if value is not RNG and value is not START
    }


def changes(before: Mapping[str, State], after: Mapping[str, State]) -> Iterator[Change]:
    """Yield the parts that have changed."""
    for path, old in before.items():
        new = after.get(path, old)
        if new != old:
            yield Change(path, old, new)


def _state(value: Any) -> State:
    kind = type(value).__name__
    with suppress(Exception):  # its class may not let itself be looked at
        if isinstance(value, str | PurePath) and len(str(value)) < MAX_PATH:
            with suppress(OSError, ValueError):
                status = os.stat(value)
                if stat.S_ISREG(status.st_mode):
                    return State(f"the file {value}", (status.st_size, status.st_mtime_ns), "file")
        if isinstance(value, _SCALARS):
            return State(f"{value!r:.60}", (kind, repr(value)))
        if isinstance(value, dict | list | tuple | set | frozenset | deque):
            return State(f"a {kind} of {len(value)}")
        if type(value) is np.ndarray and not value.dtype.hasobject:
            data = value if value.nbytes <= MAX_HASHED_BYTES else value[:1]
            return State(f"an array of shape {value.shape}", (value.dtype, zlib.crc32(data.tobytes())))
        if isinstance(value, _GENERATORS):
            return State(f"a {kind}", dump(value), "generator")
    return State(f"a {kind}")


# What cannot be pickled


class Culprit(NamedTuple):
    """A part that cannot be pickled, though what it is made of can be, as far as one can see into it."""

    path: str
    value: Any
    error: str

    @property
    def kind(self) -> str:
        """Name of its type."""
        return type(self.value).__name__


def find_culprit(value: Any, path: str) -> Culprit | None:
    """Return the innermost part of an object that cannot be pickled; None if all can be."""
    found, ahead = None, [(path, value)]
    for _ in range(MAX_DEPTH):
        for inner, part in ahead:
            error = _pickling_error(part)
            if error and (found is None or part is not found.value):
                found, ahead = Culprit(inner, part, error), parts(inner, part)
                break
        else:
            break
    return found


def _pickling_error(value: Any) -> str:
    """Return why an object cannot be pickled as recipes are; '' if it can be. No large array is copied."""
    try:
        pickled(value, lambda _: (0, 0), None)
    except Exception as error:
        return describe_error(error)
    return ""
