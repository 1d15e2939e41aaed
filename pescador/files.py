"""What rows and patches read: arrays by their keys, in memory or in files.

:class:`Source` takes everything that users have such arrays in. An NPZ archive is loaded; everything else
that lies in a file is read in parts, when they are needed. The libraries for HDF5 and Zarr are imported when
the first such file comes.

What :meth:`Source.item` gives shares no memory with the source, so a consumer may write into it, and keep it
when the file is closed.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import Any, BinaryIO, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from .describe import describe
from .exceptions import DataError, MissingKeyError, ParameterError
from .memory import empty

__all__ = ["Data", "Keys", "Readable", "Source", "part", "stacked"]

Where = TypeVar("Where")
Keys = tuple[str, ...] | None
Array = npt.NDArray[Any]

NPY = b"\x93NUMPY"
ZIP = b"PK"  # an NPZ archive is one
HDF5 = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512  # bytes that may come before it; MATLAB writes its version there

SMALL_ARCHIVE = 1 << 20  # bytes
SMALL = 8192  # bytes: to copy so many again costs less than to make an array where a worker delivers it


class Readable(Protocol):
    """An array in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis."""

    @property
    def dtype(self) -> Any:
        """Type of its elements."""

    def __getitem__(self, where: Any, /) -> Any: ...


@runtime_checkable
class Stored(Readable, Protocol):
    """An array in a file, which gives a new array for each part that is read: of h5py or Zarr."""

    @property
    def chunks(self) -> Any:
        """Shape of the pieces in which it is stored."""


class Keyed(Protocol):
    """What holds arrays by their keys: a dict, a group of h5py or Zarr, a data frame."""

    def keys(self) -> Iterable[Any]:
        """Return its keys."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __contains__(self, key: Any, /) -> bool: ...


Data = Keyed | npt.ArrayLike | os.PathLike[str]
"""What rows and patches take."""


class Source:
    """Arrays that are read alike; a context manager, which closes what it opened.

    It also drops the arrays then: whoever still holds the Source holds no memory-mapped file. (It is not made
    by contextlib.contextmanager, of which Python 3.10 keeps the arrays until the next garbage collection.)

    Parameters
    ----------
    data : dict of arrays, path, or group
        A single array gives items that are arrays, and no dicts.
    keys : tuple of str or None
        Keys of the arrays to be read; None for all of them.

    Attributes
    ----------
    name : str
        What stands for it in messages.
    """

    def __init__(self, data: Data, keys: Keys) -> None:
        path = os.fspath(data) if isinstance(data, str | os.PathLike) else None
        self.name = f"the {type(data).__name__}" if path is None else repr(path)
        with ExitStack() as stack:
            found: Any = data if path is None else _open(path, keys, stack)
            self._arrays: dict[Any, Readable] | Readable
            if hasattr(found, "keys"):
                self._arrays = _arrays(found, keys, self.name, stack)
            elif keys is None:
                self._arrays = _readable(found, stack)
            else:
                raise ParameterError(f"keys= chooses arrays by their keys, but {self.name} is a single array")
            self._files = stack.pop_all()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self._arrays = {}
        self._files.close()

    def length(self, axis: int) -> int:
        """Return the length of all arrays along an axis, or raise DataError."""
        arrays = self._arrays.values() if isinstance(self._arrays, dict) else [self._arrays]
        shapes = [array.shape for array in arrays]
        if all(-len(shape) <= axis < len(shape) for shape in shapes):
            lengths = {shape[axis] for shape in shapes}
            if len(lengths) == 1:
                return int(lengths.pop())
        raise DataError(
            f"all arrays must have the same length along axis {axis}, but {self.name} is "
            f"{describe(self._arrays)}; keys= chooses some of them"
        )

    def change(self, change: Callable[[Any, Readable], Readable]) -> None:
        """Replace each array by what `change` makes of its key (None for a single one) and of itself."""
        if isinstance(self._arrays, dict):
            self._arrays = {key: change(key, array) for key, array in self._arrays.items()}
        else:
            self._arrays = change(None, self._arrays)

    def item(self, read: Callable[[Readable, Where], Any], where: Where) -> Any:
        """Return what `read` takes from each array, and keep no reference to it."""
        arrays = self._arrays
        if isinstance(arrays, dict):
            return {key: read(array, where) for key, array in arrays.items()}
        return read(arrays, where)


def _open(path: str, keys: Keys, stack: ExitStack) -> Any:
    """Open a file, whose first bytes say what it is, or a folder of Zarr."""
    if os.path.isdir(path):
        return _library("zarr", path).open(path, mode="r")  # it keeps no file open
    with open(path, "rb") as file:  # here, because np.load forgets to close an archive that is damaged
        head = file.read(USER_BLOCK + len(HDF5))
        if head.startswith(ZIP):
            file.seek(0)
            return _archive(file, path, keys)
    if head.startswith(NPY):
        return np.load(path, mmap_mode="r")
    if HDF5 in (head[: len(HDF5)], head[USER_BLOCK:]):
        return stack.enter_context(_library("h5py", path).File(path, "r"))
    raise DataError(f"{path!r} is neither an NPY, NPZ or HDF5 file nor a folder of Zarr")


def _archive(file: BinaryIO, path: str, keys: Keys) -> dict[str, Array]:
    """Load arrays of an NPZ archive; a small one is read at once, for numpy.load reads it in many pieces."""
    is_small = os.fstat(file.fileno()).st_size <= SMALL_ARCHIVE
    with np.load(io.BytesIO(file.read()) if is_small else file) as archive:
        read = partial(_member, archive) if is_small else archive.__getitem__
        return {key: read(key) for key in _names(archive, keys, repr(path))}


def _member(archive: NpzFile, key: str) -> Array:
    """Return an array as it lies in the archive, read-only, unless only NumPy can read that."""
    if archive.zip is not None and (name := f"{key}.npy") in archive.zip.NameToInfo:
        content = archive.zip.read(name)
        if content.startswith(NPY + b"\1\0"):
            start = len(NPY) + 4 + int.from_bytes(content[8:10], "little")
            shape, is_fortran, dtype = _header(content[:start])
            if not dtype.hasobject:
                return np.ndarray(shape, dtype, content, start, order="F" if is_fortran else "C")
    return archive[key]


@lru_cache
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and dtype of an NPY file; parsing them costs as much as reading a small file."""
    file = io.BytesIO(head)
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)


def _library(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = {"h5py": "hdf5"}.get(name, name)
        raise ParameterError(
            f"{path!r} is read with {name}, which cannot be imported ({error}): "
            f'pip install "pescador[{extra}]"'
        ) from error


def _arrays(found: Keyed, keys: Keys, name: str, stack: ExitStack) -> dict[Any, Readable]:
    arrays = {}
    for key in _names(found, keys, name):
        value = found[key]
        is_group = hasattr(value, "keys") and not hasattr(value, "shape")
        if keys is not None or isinstance(found, dict) or not is_group:
            arrays[key] = _readable(value, stack)
    if not arrays:
        raise DataError(f"there are no arrays in {name}")
    return arrays


def _names(found: Keyed, keys: Keys, name: str) -> Iterable[Any]:
    """Return the keys that are to be read."""
    for key in keys or ():
        if key not in found:
            raise MissingKeyError(f"there is no {key!r} in {name}, but {_names(found, None, name)}")
    if keys is not None:
        return keys
    # Those of Zarr come in another order each time.
    return list(found.keys()) if isinstance(found, Mapping) else sorted(found.keys(), key=str)


def _readable(value: Any, stack: ExitStack) -> Readable:
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        value = _open(path, None, stack)
        if hasattr(value, "keys"):
            raise DataError(f"{path!r} holds arrays by their keys, but a single array is needed")
    if not isinstance(value, np.ndarray) and isinstance(value, Stored):
        return value
    array = np.asanyarray(value)
    # Parts of a memmap would be memmaps, too. A view of it keeps the file open as long.
    return array.view(np.ndarray) if type(array) is np.memmap else array


def part(array: Readable, where: tuple[Any, ...]) -> Any:
    """Return what ``array[where]`` refers to, as a new array, or as a scalar if it has no axis."""
    found = array[where]
    own: Array
    if not isinstance(array, np.ndarray):
        own = found if isinstance(found, np.ndarray) else np.array(found)
    elif type(array) is np.ndarray and found.nbytes > SMALL:
        own = empty(found.shape, found.dtype)
        own[...] = found
    else:
        own = found.copy()  # of a subclass, such as a masked array, with all that belongs to it
    return own if own.ndim else own[()]


def stacked(array: Readable, indices: npt.NDArray[np.int64]) -> Array:
    """Return rows of an array as a new one."""
    if isinstance(array, np.ndarray) and type(array) is not np.ndarray:
        return array[indices]
    rows = empty((len(indices), *array.shape[1:]), array.dtype)
    if isinstance(array, np.ndarray):
        flags = array.flags
        if flags.c_contiguous and flags.aligned and array.dtype.isnative:  # else it copies the whole array
            return array.take(indices, 0, rows, "clip")  # which, unlike "raise", has no buffer
    for i in indices.argsort().tolist():  # so that those which are stored side by side are read together
        rows[i, ...] = array[int(indices[i]), ...]
    return rows
