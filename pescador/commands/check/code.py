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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ...isolation import GLOBALS

__all__ = ["SET_ORDER", "Reference", "Suspect", "draws_globally", "references", "suspect"]


_NOTHING: Final = object()


class Reference(NamedTuple):
    """An object that code refers to by a global name, a closure or an import, and by attributes of that."""

    name: str
    value: Any
    line: int


def references(function: types.FunctionType) -> Iterator[Reference]:
    """Yield what the code of a function refers to: for ``time.time`` that function, however it is called."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for code in _codes(function.__code__):
        names: dict[str, Any] = {}  # what was imported in it
        found: Reference | None = None
        module: Any = None
        imported: Any = None
        line = code.co_firstlineno
        for instruction in dis.get_instructions(code):
            kind, name = instruction.opname, instruction.argval
            line = _line_of(instruction) or line
            if found is not None and kind in ("LOAD_ATTR", "LOAD_METHOD"):
                value = _attribute(found.value, name)
                if value is not _NOTHING:
                    found = Reference(f"{found.name}.{name}", value, line)
                    continue
            if found is not None:
                yield found
                found = None
            if kind in ("LOAD_GLOBAL", "LOAD_NAME"):
                for namespace in (function.__globals__, vars(builtins)):
                    if name in namespace:
                        found = Reference(name, namespace[name], line)
                        break
            elif kind == "LOAD_DEREF" and name in cells:
                with suppress(ValueError):  # it is empty
                    found = Reference(name, cells[name].cell_contents, line)
            elif kind == "IMPORT_NAME":
                module = imported = sys.modules.get(name)
            elif kind == "IMPORT_FROM":
                imported = getattr(module, name, None)
            elif "_FAST" in kind:
                variables = name if isinstance(name, tuple) else (name,)  # two, in STORE_FAST_LOAD_FAST
                if kind.startswith("STORE") and imported is not None:
                    names[variables[0]], imported = imported, None
                if "LOAD" in kind and variables[-1] in names:
                    found = Reference(variables[-1], names[variables[-1]], line)
            elif kind == "BUILD_SET":
                found = Reference("a set", set, line)


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute of a module or a class; _NOTHING of anything else, and if it would be computed."""
    if isinstance(owner, types.ModuleType):
        return vars(owner).get(name, _NOTHING)
    return getattr(owner, name, _NOTHING) if type(owner) is type else _NOTHING


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _line_of(instruction: dis.Instruction) -> int | None:
    positions = getattr(instruction, "positions", None)  # from Python 3.11 on
    return instruction.starts_line if positions is None else positions.lineno


class Suspect(NamedTuple):
    """On what the value of some functions depends, besides their arguments."""

    what: str
    remedy: str
    values: tuple[Any, ...]


_SUSPECTS: Final = (
    Suspect(
        "the time",
        "Pass the time as an argument, or leave it out of the items",
        (
            *(time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter),
            *(time.perf_counter_ns, time.process_time, time.localtime, time.gmtime, time.ctime),
            *(time.strftime, datetime.datetime.now, datetime.datetime.today, datetime.date.today),
        ),
    ),
    Suspect(
        "random numbers of the system, if no seed is given",
        "Draw from an argument, Streamer(function, rng=pescador.RNG): a Generator of each opening's own seed",
        (
            *(os.urandom, uuid.uuid1, uuid.uuid4, secrets.token_bytes, secrets.token_hex, secrets.randbelow),
            *(secrets.randbits, secrets.choice, random.SystemRandom, random.Random, np.random.default_rng),
            *(np.random.RandomState, np.random.SeedSequence, np.random.PCG64, np.random.MT19937),
            *(np.random.Philox, np.random.SFC64),
        ),
    ),
    Suspect(
        "the process or thread in which it runs",
        "Let no item depend on that",
        (
            *(os.getpid, os.getppid, threading.get_ident, threading.get_native_id, threading.current_thread),
            *(threading.main_thread, multiprocessing.current_process, multiprocessing.parent_process),
        ),
    ),
    Suspect(
        "the order of a set, or hashes, which differ from process to process",
        "Sort what is in the set: sorted(names)",
        (set, frozenset, hash, id),
    ),
    Suspect(
        "the order in which the system lists files",
        "Sort them: sorted(os.listdir(folder))",
        (os.listdir, os.scandir, os.walk, glob.glob, glob.iglob, Path.glob, Path.rglob, Path.iterdir),
    ),
)

SET_ORDER: Final = _SUSPECTS[3]
"""What a set among the arguments is suspected of."""


def suspect(value: Any) -> Suspect | None:
    """Return on what it depends what an object gives when it is called; None if on its arguments alone."""
    for found in _SUSPECTS:
        if any(type(value) is type(one) and value == one for one in found.values):
            return found
    return None


def draws_globally(value: Any) -> bool:
    """Whether an object is a function of np.random or random, which draws from a state that all share."""
    return isinstance(value, types.BuiltinFunctionType | types.MethodType) and id(value.__self__) in GLOBALS
