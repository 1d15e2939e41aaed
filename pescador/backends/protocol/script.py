"""The user's script in workers: the module ``__main__``, which a worker never runs again.

cloudpickle sends functions and classes of a script by value. Here they find their way back into a module
``__main__`` in the worker, so that there is one of each, as in the consumer:

- A function of the script has the namespace of that module as its globals. What it refers to arrives with it;
  a global that was changed arrives again with the next recipe, and then holds for all functions.
- Functions and classes that no recipe refers to can be found by name, as ``pickle.load`` and the pools of
  :mod:`multiprocessing` look for them: their pickles are in a table, which came when the worker started, and
  are loaded when somebody asks for them.

In a process that :mod:`multiprocessing` started, the script is called ``__mp_main__``; both names are one
module. Code keeps the name of its file, for tracebacks, and the lines of a notebook's cells come along.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import pickle
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, Literal

import cloudpickle
import numpy as np

from .mapped import InFile, InSegment

__all__ = [
    "GLOBALS",
    "GLOBALS_ID",
    "MAIN",
    "PersistentId",
    "Pickler",
    "RecipeData",
    "Unpickler",
    "filename",
    "install",
    "is_by_value",
    "names",
]

MAIN: Final = ("__main__", "__mp_main__")

# What a Pickler has cloudpickle take for the namespace of the script, and replaces by GLOBALS_ID. It is not
# empty, for into an empty one cloudpickle would put the globals that a function uses.
GLOBALS: Final[dict[str, Any]] = {"__name__": "__main__"}
GLOBALS_ID: Final = ("main",)

PersistentId = (
    tuple[Literal["main"]]
    | tuple[Literal["part"], int]
    | tuple[Literal["array"], InSegment]
    | tuple[Literal["file"], InFile]
)
"""What is in a pickle in place of an object that the worker finds elsewhere."""

RecipeData = bytes | tuple[int, tuple[Any, ...], dict[str, Any]]
"""The pickle of a stream. Or, if it is a function and a few atoms: the number of the part that the function
is, and the arguments, which takes a third of the time.
"""

# A function or class is not found by name if its pickle, with all that it refers to, is longer than this, or
# if it refers to a larger array. The table holds no more than this.
MAX_NAME_BYTES = 1 << 18
MAX_ARRAY_BYTES = 1 << 12
MAX_TABLE_BYTES = 1 << 22

if sys.modules.get("__mp_main__") is sys.modules["__main__"] is not None:
    # Nobody else can import it, so what it defines must be sent by value.
    cloudpickle.register_pickle_by_value(sys.modules["__mp_main__"])


def is_by_value(function: FunctionType) -> bool:
    """Whether a function is (most likely) pickled with its code, and not as a name to import."""
    return function.__module__ in MAIN or "<" in function.__qualname__  # <lambda>, <locals>


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickles functions of the script so that they come to be in the worker's ``__main__``."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5)
        self.globals_ref[id(vars(sys.modules["__main__"]))] = GLOBALS

    def persistent_id(self, value: Any) -> PersistentId | None:
        """Return what to send in place of an object; None sends the object itself."""
        return GLOBALS_ID if value is GLOBALS else None

    def reducer_override(self, value: Any) -> Any:
        """Return how to make an object again, where pickle or cloudpickle would not do."""
        if type(value) is CodeType:
            return _with_file, (_Code(self.dispatch_table[CodeType](value)), *_file_of(value))
        return super().reducer_override(value)


class Unpickler(pickle.Unpickler):
    """Loads what the Pickler has made."""

    def persistent_load(self, pid: PersistentId) -> Any:
        """Return what a persistent id stands for."""
        if pid == GLOBALS_ID:
            return vars(sys.modules["__main__"])
        raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")


class _Code:
    """Stands for a code object, which cloudpickle reduces to this."""

    def __init__(self, reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced


def _with_file(code: CodeType, filename: str, lines: list[str] | None) -> CodeType:
    if lines is not None:
        linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)
    return code.replace(co_filename=filename)


def _file_of(code: CodeType) -> tuple[str, list[str] | None]:
    """Return the absolute name of the file of some code; if there is none, the lines of it that are known."""
    filename = code.co_filename
    with contextlib.suppress(OSError):
        if os.path.isfile(filename):
            return os.path.abspath(filename), None
    cached = linecache.cache.get(filename)
    return filename, list(cached[2]) if cached is not None and len(cached) > 2 else None


# Names of the script


def names() -> dict[str, bytes]:
    """Return pickles of the functions and classes that the script of this process defines, by name.

    Those that cannot be pickled, or refer to much data, are left out.
    """
    main = sys.modules["__main__"]
    table: dict[str, bytes] = dict(getattr(getattr(main, "__getattr__", None), "table", {}))
    n_bytes = sum(map(len, table.values()))
    for name, value in list(vars(main).items()):
        if not isinstance(value, FunctionType | type) or getattr(value, "__module__", None) not in MAIN:
            continue
        if isinstance(value, _Names):
            continue
        file = _Bounded()
        try:
            _NamePickler(file).dump(value)
        except Exception:  # whatever it refers to cannot be sent
            continue
        data = file.getvalue()
        n_bytes += len(data)
        if n_bytes > MAX_TABLE_BYTES:
            break
        table[name] = data
    return table


def filename() -> str | None:
    """Return the name of the script's file; None if there is none."""
    name = getattr(sys.modules["__main__"], "__file__", None)
    return os.path.abspath(name) if isinstance(name, str) else None


def install(table: dict[str, bytes], filename: str | None) -> None:
    """Have this process, a worker, find the names of its consumer's script in ``__main__``."""
    main = ModuleType("__main__")
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]
    if filename is not None:
        main.__file__ = filename
    main.__getattr__ = _Names(table)  # type: ignore[method-assign]
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


class _Names:
    """The ``__getattr__`` of a worker's ``__main__``: loads what is asked for from the table."""

    __slots__ = ("table",)

    def __init__(self, table: dict[str, bytes]) -> None:
        self.table = table

    def __call__(self, name: str) -> Any:
        data = self.table.get(name)
        if data is None:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        namespace = vars(sys.modules["__main__"])
        value = Unpickler(io.BytesIO(data)).load()
        return namespace.setdefault(name, value)


class _NamePickler(Pickler):
    def persistent_id(self, value: Any) -> PersistentId | None:
        """Refuse an object that may hold much data before that is pickled."""
        kind = type(value)
        if isinstance(value, np.ndarray | np.generic):
            if value.nbytes > MAX_ARRAY_BYTES:
                raise _TooMuch
        elif hasattr(kind, "__array__") or hasattr(kind, "__dlpack__"):  # a tensor, a data frame
            raise _TooMuch
        return super().persistent_id(value)


class _Bounded(io.BytesIO):
    """A file in memory that refuses to become longer than MAX_NAME_BYTES."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MAX_NAME_BYTES:
            raise _TooMuch
        return super().write(data)


class _TooMuch(Exception):  # noqa: N818  # no error: the name is left out of the table
    pass
