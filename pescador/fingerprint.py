"""What tells a tree of streams from another: enough to notice that a state is of another one.

It is no proof. Of a large mux some streams are looked at, of an array its dtype and shape, and of an object
its class. Of a path it is the last part, so that data may lie elsewhere on another machine, but the order of
files counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Sized
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from .arguments import Undecorated
from .isolation import ATOMS
from .opening import Openable

if TYPE_CHECKING:  # which import this module
    from .checkpoint import Resumable
    from .mux.weighted import WeightedMux

__all__ = ["Parts", "fingerprint", "parts_of_recipe", "summary"]

LOOKED_AT: Final = 64
"""How many streams of a tree are looked at; of each mux some of its streams, at equal distances."""
ENTRIES: Final = 8
"""How many entries of a container are looked at."""


class Parts(NamedTuple):
    """What a stream consists of."""

    what: Callable[[], list[Any]]
    """Returns what tells it from others, of what JSON knows."""
    members: Sequence[Resumable]
    """The streams directly below it."""
    seed: Any = None
    """Its own seed, if it has one."""
    weighted: WeightedMux[Any] | None = None
    """Itself, if it has weights, which may be changed."""


def fingerprint(stream: Resumable) -> tuple[str, str]:
    """Return two texts: of a tree of streams, and of the seeds that its muxes were given."""
    seeds: list[Any] = []

    def look_at(stream: Resumable, bound: int) -> list[Any]:
        what, members, seed, _ = stream._parts()
        seeds.append(seed)
        n = min(len(members), bound)
        chosen = [members[i * len(members) // n] for i in range(n)]
        return [what(), len(members), [look_at(member, max(1, bound // n)) for member in chosen]]

    return _digest(look_at(stream, LOOKED_AT)), _digest(seeds)


def parts_of_recipe(source: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    """Return the parts of a Streamer."""
    if isinstance(source, partial):
        return parts_of_recipe(source.func, (*source.args, *args), {**source.keywords, **kwargs})
    is_method = isinstance(source, MethodType) and isinstance(source.__self__, Openable)
    members: list[Any] = []
    for value in (source.__self__ if is_method else source, *args, *kwargs.values()):  # type: ignore[attr-defined]  # as was told
        kind = type(value)
        if kind in ATOMS:
            continue
        if isinstance(value, Openable):
            members.append(value)
        elif kind in (list, tuple, dict):
            entries = value.values() if kind is dict else value
            if any(issubclass(each, Openable) for each in set(map(type, entries))):
                members.extend(entry for entry in entries if isinstance(entry, Openable))

    def what() -> list[Any]:
        return [summary(source), list(map(summary, args)), [[key, summary(kwargs[key])] for key in kwargs]]

    return Parts(what, members)


def summary(value: object) -> Any:
    """Return what tells an object from others, of what JSON knows."""
    kind = type(value)
    if isinstance(value, str | os.PathLike):
        return os.fsdecode(value).replace("\\", "/").rstrip("/").rpartition("/")[2]
    if value is None or kind in (bool, int, float, complex):
        return repr(value)
    if isinstance(value, np.generic):
        return str(value)
    if isinstance(value, np.ndarray):
        return [value.dtype.str, list(value.shape)]
    if isinstance(value, FunctionType | BuiltinFunctionType | MethodType | type | Undecorated):
        return value.__qualname__
    if isinstance(value, partial):
        return [summary(value.func), list(map(summary, value.args)), summary(value.keywords)]
    name = kind.__qualname__
    if kind in (list, tuple):
        return [name, len(value), list(map(summary, value[:ENTRIES]))]  # type: ignore[arg-type, index]
    if isinstance(value, Openable):
        return "stream"
    try:
        length = len(value) if isinstance(value, Sized) else None
    except Exception:  # it has none after all
        length = None
    if kind is dict:
        entries = islice(value.items(), ENTRIES)  # type: ignore[attr-defined]
        return [name, length, [[str(key), summary(entry)] for key, entry in entries]]
    return [name, length]


def _digest(value: object) -> str:
    # Not with pescador, for few programs ask for a state, and hashlib loads OpenSSL.
    import json
    from hashlib import blake2b

    return blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()
