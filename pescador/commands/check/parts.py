"""What a stream is made of: the parts of its recipe, with the path that leads to each.

Parts are the streams below it, the arguments and what is in them, and what its generator functions refer to
in another way: closures, defaults, globals. Code of libraries is not looked into. All walks are bounded, so
that a mux of a million streams takes no longer than one of some thousands.
"""

from __future__ import annotations

import os
import random
import stat
import sysconfig
import types
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from ...arguments import Undecorated
from ...backends.protocol.pickling import dump
from ...core import Streamer
from ...isolation import GLOBALS
from ...mux import BaseMux
from .code import references

__all__ = [
    "Change",
    "State",
    "changes",
    "functions_of",
    "of_arguments",
    "parts",
    "path_of",
    "snapshot",
    "streams_below",
    "walk",
]

MAX_PARTS: Final = 20_000  # of one walk
MAX_ENTRIES: Final = 2_000  # of one container
MAX_HASHED_BYTES: Final = 1 << 24  # of one array
MAX_PATH: Final = 1000  # characters of a text that may be the name of a file

_SCALARS: Final = (int, float, complex, str, bytes, type(None), np.generic)
_GENERATORS: Final = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque)
_LIBRARIES: Final = (
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    str(Path(__file__).parents[2]) + os.sep,  # pescador
    "<frozen",
)


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
    if isinstance(value, _SCALARS):
        return
    if isinstance(value, Streamer):
        yield from _parts_of_stream(path, value)
    elif isinstance(value, types.FunctionType):
        if _is_of_user(value):
            yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        if id(value.__self__) not in GLOBALS:
            yield f"{path}.__self__", value.__self__
        yield path, value.__func__
    elif isinstance(value, partial):
        yield f"{path}.func", value.func
        yield from _entries(f"{path}.args", value.args)
        yield from _entries(f"{path}.keywords", value.keywords)
    elif isinstance(value, _CONTAINERS):
        yield from _entries(path, value)
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            yield from _entries(f"{path}.flat", value.ravel().tolist())
    elif not isinstance(value, type | types.ModuleType | Undecorated):
        yield from _attributes(path, value)


def streams_below(path: str, stream: Streamer[Any]) -> Iterator[tuple[str, Streamer[Any]]]:
    """Yield the streams of which a stream is made, one level below it."""
    for inner, part in parts(path, stream):
        if isinstance(part, Streamer):
            yield inner, part
        elif isinstance(part, list | tuple | dict):
            yield from ((name, entry) for name, entry in _entries(inner, part) if isinstance(entry, Streamer))


def path_of(root: Streamer[Any], name: str, stream: Streamer[Any]) -> str:
    """Return the path from a stream to one below it; an empty text if it is not found."""
    ahead = deque([(name, root)])
    for _ in range(MAX_PARTS):
        if not ahead:
            break
        path, found = ahead.popleft()
        if found is stream:
            return path
        for i, member in enumerate(found.streamer if isinstance(found.streamer, list) else ()):
            if member is stream:  # there may be more than are looked at here
                return f"{path}.streamers[{i}]"
        ahead.extend(streams_below(path, found))
    return ""


def functions_of(root: Any) -> Iterator[types.FunctionType]:
    """Yield the functions of the user that are parts of an object."""
    for _, part in walk(root, ""):
        if isinstance(part, types.FunctionType) and _is_of_user(part):
            yield part


def _function_of(stream: Streamer[Any]) -> types.FunctionType | None:
    """Return the Python function that makes the items of a stream, if there is one."""
    source: Any = type(stream).samples if isinstance(stream, BaseMux) else stream.streamer
    while isinstance(source, partial):
        source = source.func
    if isinstance(source, Undecorated):
        source = source.factory.__wrapped__
    if not isinstance(source, types.FunctionType | types.MethodType):
        kind: Any = type(source)
        source = getattr(kind, "__iter__", None) or (kind.__call__ if callable(source) else None)
    source = getattr(source, "__func__", source)
    return source if isinstance(source, types.FunctionType) else None


class State(NamedTuple):
    """What a part is at some time. What it holds are parts of their own."""

    text: str
    token: object = None
    """What is compared besides the text."""
    kind: Literal["file", "generator", ""] = ""
    """Whether it is a random generator, or the name of a file."""


class Change(NamedTuple):
    """A part that is not what it was."""

    path: str
    old: State
    new: State

    def words(self) -> str:
        """Return how it has changed."""
        if self.old.text == self.new.text:
            return f"is {self.old.text}, and has changed"
        return f"was {self.old.text}, and is {self.new.text}"


def snapshot(root: Any, path: str) -> dict[str, State]:
    """Return what all parts of an object are now, by path, to be compared with what they are later."""
    return {inner: _state(value) for inner, value in walk(root, path)}


def of_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, State]:
    """Return what the arguments of a generator function are now."""
    return {**snapshot(args, ".args"), **snapshot(kwargs, ".kwargs")}


def changes(before: Mapping[str, State], after: Mapping[str, State]) -> Iterator[Change]:
    """Yield the parts that have changed."""
    for path, old in before.items():
        new = after.get(path, old)
        if new != old:
            yield Change(path, old, new)


def _state(value: Any) -> State:
    try:
        return _known_state(type(value).__name__, value)
    except Exception:  # its class does not let itself be looked at
        return State("an object")


def _known_state(kind: str, value: Any) -> State:
    if isinstance(value, str | PurePath) and len(str(value)) < MAX_PATH:
        with suppress(OSError, ValueError):
            status = os.stat(value)
            if stat.S_ISREG(status.st_mode):
                return State(f"the file {value}", (status.st_size, status.st_mtime_ns), "file")
    if isinstance(value, _SCALARS):
        return State(f"{value!r:.60}", (kind, repr(value)))
    if isinstance(value, _CONTAINERS):
        return State(f"a {kind} of {len(value)}")
    if type(value) is np.ndarray and not value.dtype.hasobject:
        data = value if value.nbytes <= MAX_HASHED_BYTES else value[:1]
        return State(f"an array of shape {value.shape}", (value.dtype, zlib.crc32(data.tobytes())))
    if isinstance(value, _GENERATORS):
        return State(f"a {kind}", dump(value), "generator")
    return State(f"a {kind}")


def _parts_of_stream(path: str, stream: Streamer[Any]) -> Iterator[tuple[str, Any]]:
    source: Any = stream.streamer
    if isinstance(source, list):
        yield from _entries(f"{path}.streamers", source)
    else:
        yield f"{path}.streamer", source
    yield from _entries(f"{path}.args", stream.args)
    yield from _entries(f"{path}.kwargs", stream.kwargs)
    function = _function_of(stream)
    if function is not None and _is_of_user(function):
        yield function.__qualname__, function


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    name, code = function.__qualname__, function.__code__
    defaults = function.__defaults__ or ()
    variables = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for variable, value in (*zip(variables, defaults, strict=True), *(function.__kwdefaults__ or {}).items()):
        yield f"{variable} (a default of {name})", value
    for variable, value, _ in references(function):
        if isinstance(value, types.FunctionType):
            yield value.__qualname__, value
        elif not isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            is_free = variable.partition(".")[0] in code.co_freevars
            yield (
                f"{variable} ({'in the closure of' if is_free else 'a global that is used by'} {name})",
                value,
            )


def _entries(path: str, container: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(container, set | frozenset):
        yield from ((f"an entry of {path}", entry) for entry in list(islice(container, MAX_ENTRIES)))
        return
    pairs: Iterable[tuple[Any, Any]]
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    for key, entry in list(islice(pairs, MAX_ENTRIES)):
        yield f"{path}[{key!r:.50}]", entry


def _attributes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    namespace = getattr(value, "__dict__", None)
    if isinstance(namespace, dict):
        yield from ((f"{path}.{name}", attribute) for name, attribute in list(namespace.items()))
    for kind in type(value).__mro__:
        for name, descriptor in list(vars(kind).items()) if "__slots__" in vars(kind) else ():
            if isinstance(descriptor, types.MemberDescriptorType):
                with suppress(Exception):  # it is empty
                    yield f"{path}.{name}", descriptor.__get__(value)


def _is_of_user(function: types.FunctionType) -> bool:
    return not function.__code__.co_filename.startswith(_LIBRARIES)
