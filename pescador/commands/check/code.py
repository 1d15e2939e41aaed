"""What the code of a function refers to, and which of it may differ from one opening to the next."""

from __future__ import annotations

import builtins
import datetime
import dis
import glob
import multiprocessing
import os
import random
import secrets
import sys
import threading
import time
import types
import uuid
from collections import ChainMap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ...isolation import global_states

__all__ = ["RNG_REMEDY", "SET_ORDER", "Reference", "Suspect", "draws_globally", "references", "suspect"]

_NOTHING: Final = object()


class Reference(NamedTuple):
    """An object that code refers to by a global name, a closure or an import, and by attributes of that."""

    name: str
    value: Any
    place: str
    """File and line."""

    def __str__(self) -> str:
        return f"{self.name} ({self.place})"


def references(function: types.FunctionType) -> Iterator[Reference]:
    """Yield what the code of a function refers to: for ``time.time`` that function, however it is called."""
    closure: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty
            closure[name] = cell.cell_contents
    known = ChainMap(function.__globals__, vars(builtins))
    yield from _references(
        function.__code__, {"LOAD_GLOBAL": known, "LOAD_NAME": known, "LOAD_DEREF": closure}
    )


def _references(code: types.CodeType, scopes: dict[str, Any]) -> Iterator[Reference]:
    variables: dict[str, Any] = {}  # what was imported here
    found: Reference | None = None
    module = imported = None
    place = ""
    for instruction in dis.get_instructions(code):
        kind, name = instruction.opname, instruction.argval
        positions = getattr(instruction, "positions", None)  # from Python 3.11 on
        line = instruction.starts_line if positions is None else positions.lineno
        place = f"{code.co_filename}:{line}" if line else place
        if found is not None:
            value = _attribute(found.value, name) if kind in ("LOAD_ATTR", "LOAD_METHOD") else _NOTHING
            if value is not _NOTHING:
                found = Reference(f"{found.name}.{name}", value, place)
                continue
            yield found
            found = None
        if kind == "IMPORT_NAME":
            module = imported = sys.modules.get(name)
        elif kind == "IMPORT_FROM":
            imported = getattr(module, name, None)
        elif kind == "STORE_FAST":
            if imported is not None:
                variables[name], imported = imported, None
        elif kind == "BUILD_SET":
            found = Reference("a set", set, place)
        elif "LOAD_FAST" in kind or kind in scopes:
            name = name[-1] if isinstance(name, tuple) else name  # two, in LOAD_FAST_LOAD_FAST
            scope = scopes.get(kind, variables)
            found = Reference(name, scope[name], place) if name in scope else None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _references(constant, scopes)


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute of a module or a class; _NOTHING of anything else, and if it would be computed."""
    if isinstance(owner, types.ModuleType):
        return vars(owner).get(name, _NOTHING)
    return getattr(owner, name, _NOTHING) if type(owner) is type else _NOTHING


class Suspect(NamedTuple):
    """Something on which items may depend besides the arguments of their generator function."""

    what: str
    remedy: str


RNG_REMEDY: Final = (
    "Let the generator function take a Generator, which is seeded anew for each opening: "
    "Streamer(function, rng=pescador.RNG)"
)
SET_ORDER: Final = Suspect(
    "the order of a set, or hashes, which differ from process to process",
    "Sort what is in the set: sorted(names)",
)

_SUSPECTS: Final[dict[Any, Suspect]] = {
    value: suspected
    for suspected, values in {
        Suspect("the time", "Pass the time as an argument, or leave it out of the items"): (
            *(time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter),
            *(time.perf_counter_ns, time.process_time, time.localtime, time.gmtime, time.ctime),
            *(time.strftime, datetime.datetime.now, datetime.datetime.today, datetime.date.today),
        ),
        Suspect("random numbers of the system, which are drawn where no seed is given", RNG_REMEDY): (
            *(os.urandom, uuid.uuid1, uuid.uuid4, secrets.token_bytes, secrets.token_hex, secrets.randbelow),
            *(secrets.randbits, secrets.choice, random.SystemRandom, random.Random, np.random.default_rng),
            *(np.random.RandomState, np.random.SeedSequence, np.random.PCG64, np.random.MT19937),
        ),
        Suspect("the process or thread in which it runs", "Let no item depend on that"): (
            *(os.getpid, os.getppid, threading.get_ident, threading.get_native_id, threading.current_thread),
            *(threading.main_thread, multiprocessing.current_process, multiprocessing.parent_process),
        ),
        Suspect("the order in which the system lists files", "Sort them: sorted(os.listdir(folder))"): (
            *(os.listdir, os.scandir, os.walk, glob.glob, glob.iglob, Path.glob, Path.rglob, Path.iterdir),
        ),
        SET_ORDER: (set, frozenset, hash, id),
    }.items()
    for value in values
}


def suspect(value: Any) -> Suspect | None:
    """Return on what it depends what an object gives when it is called; None if on its arguments alone."""
    try:
        return _SUSPECTS.get(value)
    except Exception:  # it has no hash
        return None


def draws_globally(value: Any) -> bool:
    """Whether an object is a function of np.random or random, which draws from a state that all share."""
    return (
        isinstance(value, types.BuiltinFunctionType | types.MethodType)
        and id(value.__self__) in global_states()
    )
