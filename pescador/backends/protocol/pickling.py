"""Items that are no dicts of plain arrays: as pickles, with the memory of their arrays beside them.

The memory of arrays and tensors is not copied into the pickle but is a buffer of its own (protocol 5, out of
band). Where the pickle is loaded, arrays are views of the memory that their buffers have come to lie in.

The body of such an item::

    table     number of the other parts (32 bits), and the length of each (64 bits)
    pickle
    buffers   of any number

Each part begins at the next multiple of 16 bytes, or of 64 if it is not shorter than that.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import cloudpickle
import numpy as np
import numpy.typing as npt

from ...exceptions import WorkerError
from ..system.shared_memory import ALIGNMENT, Bytes
from . import tensors
from .errors import Unloadable
from .messages import Record
from .tensors import Reduced

__all__ = ["PICKLED", "Body", "Pickled", "aligned", "dump", "load", "order_of", "pickled", "unpickled"]

PICKLED: Final = 0  # the number of all layouts that are no schema

Body = bytearray | memoryview | Bytes
"""Writeable memory that belongs to one item."""

_SMALL_ALIGNMENT = 16  # bytes, for parts of less than ALIGNMENT bytes
_COUNT = struct.Struct("<I")
_ATOMS = frozenset({bool, bytes, float, int, str, type(None)})

# Modules whose names are in pickles of any items, and say nothing of what an item is.
_PLAIN_MODULES = frozenset({"builtins", "cloudpickle", "collections", "copyreg", "numpy", "types"})


class Pickled:
    """The layout of one pickle; what it has in common with a :class:`.codec.Schema` is described there."""

    __slots__ = ("_offsets", "n_bytes")

    number = PICKLED
    is_new = False

    def __init__(self, sizes: Iterable[int]) -> None:
        self._offsets: list[int] = []
        end = 0
        for size in sizes:
            self._offsets.append(aligned(end, size))
            end = self._offsets[-1] + size
        self.n_bytes = end

    def join(self, parts: Sequence[bytes | memoryview]) -> bytes:
        """Return the body."""
        pieces: list[bytes | memoryview] = []
        end = 0
        for offset, part in zip(self._offsets, parts, strict=True):
            pieces += (bytes(offset - end), part)
            end = offset + len(part)
        return b"".join(pieces)

    def write(self, parts: Sequence[bytes | memoryview], record: Record) -> None:
        """Copy the parts to where they belong in the memory of a record."""
        for offset, part in zip(self._offsets, parts, strict=True):
            record.memory[offset : offset + len(part)] = np.frombuffer(part, np.uint8)


def pickled(item: object) -> tuple[Pickled, Sequence[bytes | memoryview]]:
    """Return the layout of an item and its parts, of which the buffers are the item's own memory."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(item, 5) if type(item) in _ATOMS else dump(item, buffers)
    raws = [buffer.raw() for buffer in buffers]
    table = struct.pack(f"<I{1 + len(raws)}Q", 1 + len(raws), len(data), *(raw.nbytes for raw in raws))
    parts: list[bytes | memoryview] = [table, data, *raws]
    return Pickled(len(part) for part in parts), parts


def unpickled(body: Body) -> Any:
    """Return the item in the body of a :class:`Pickled`.

    Raises
    ------
    Unloadable
        From whatever the item raises when it is loaded.
    WorkerError
        If these bytes are no such body.
    """
    memory = memoryview(body)  # type: ignore[arg-type]  # an array has a buffer
    if len(memory) < _COUNT.size:
        raise WorkerError(f"a worker sent a broken item of {len(memory)} bytes")
    (n_parts,) = _COUNT.unpack_from(memory)
    end = _COUNT.size + 8 * n_parts
    if not n_parts or end > len(memory):
        raise WorkerError(f"a worker sent a broken item: a table of {n_parts} parts in {len(memory)} bytes")
    parts = []
    for n_bytes in struct.unpack_from(f"<{n_parts}Q", memory, _COUNT.size):
        offset = aligned(end, n_bytes)
        end = offset + n_bytes
        if end > len(memory):
            raise WorkerError(f"a worker sent a broken item: {end} bytes in a body of {len(memory)}")
        parts.append(memory[offset:end])
    return load(parts[0], parts[1:])


def aligned(offset: int, n_bytes: int) -> int:
    """Return where a part of so many bytes goes that may not begin before `offset`."""
    alignment = ALIGNMENT if n_bytes >= ALIGNMENT else _SMALL_ALIGNMENT
    return -(-offset // alignment) * alignment


def dump(value: object, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Return the pickle of any object; what pickle can't do (lambdas, classes of a script) cloudpickle does.

    Parameters
    ----------
    value : object
    buffers : list, optional
        Takes the buffers of arrays. Without it, they are in the pickle.
    """
    file = io.BytesIO()
    callback = None if buffers is None else buffers.append
    try:
        _Pickler(file, 5, buffer_callback=callback).dump(value)
        return file.getvalue()
    except Exception:  # what cloudpickle raises then says more
        file = io.BytesIO()
    if buffers is not None:
        buffers.clear()
    _CloudPickler(file, 5, buffer_callback=callback).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        reduced = _reduced(value)
        return NotImplemented if reduced is None else reduced


class _CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def reducer_override(self, value: Any) -> Any:
        reduced = _reduced(value)
        return super().reducer_override(value) if reduced is None else reduced


def _reduced(value: object) -> Reduced | None:
    """Return how an array or a tensor is made again; None if as it says itself, and for all else."""
    if type(value) is np.ndarray:
        return _reduced_array(value)
    return tensors.reduced(value) if tensors.is_tensor(value) else None


def _reduced_array(array: npt.NDArray[Any]) -> Reduced | None:
    """Return how an array is made again; None if as NumPy's own pickle does it.

    Of some arrays that would be wrong, or slow: it keeps read-only ones read-only, copies dates twice, and
    makes big-endian dates and strided big-endian arrays native.
    """
    dtype, flags = array.dtype, array.flags
    if dtype.hasobject or (flags.writeable and flags.forc and dtype.kind not in "mM"):
        return None
    order = order_of(array)
    if not array.nbytes:
        return np.ndarray, (array.shape, dtype, None, 0, None, order)
    if not (flags.writeable and flags.forc):
        array = array.copy(order)
    memory = array.reshape(-1, order=order).view(np.uint8)
    return np.ndarray, (array.shape, dtype, pickle.PickleBuffer(memory.data), 0, None, order)


def order_of(array: npt.NDArray[Any] | np.generic) -> Literal["C", "F"]:
    """Return the order in which the elements of an array are to lie where it is made again."""
    flags = array.flags
    return "F" if flags.f_contiguous and not flags.c_contiguous else "C"


def load(data: memoryview, buffers: Sequence[memoryview]) -> Any:
    """Return the object of a pickle and its buffers; raise as :func:`unpickled` does."""
    try:
        return pickle.loads(data, buffers=buffers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # What pickle itself raises comes from no other frame than this one.
        is_broken = isinstance(error, pickle.UnpicklingError | EOFError)
        if is_broken and (error.__traceback__ is None or error.__traceback__.tb_next is None):
            raise WorkerError(f"a worker sent a broken item of {len(data)} bytes: {error}") from error
        raise Unloadable(_first_type(bytes(data)), error) from None


def _first_type(data: bytes) -> str:
    """Return the name of the first class or function in a pickle that says what the item is; '' if none does.

    That is the item's own type, or one of what is in it; if there is none but those of the plain modules, the
    first of them. A class that cloudpickle sends with its code has no name in the pickle as others have: the
    function that makes its skeleton, a metaclass and a base are named, and then its own name is a text.
    """
    import pickletools  # for an error alone

    names: list[str] = []
    texts: list[str] = []  # those that belong to no name so far
    memo: list[str] = []
    pushed = ""
    with contextlib.suppress(Exception):  # it is broken
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "MEMOIZE":
                memo.append(pushed)
                continue
            pushed = argument if isinstance(argument, str) else ""
            if opcode.name in ("BINGET", "LONG_BINGET"):
                pushed = memo[int(argument)]  # type: ignore[arg-type]  # what these two have is an int
            elif opcode.name == "STACK_GLOBAL":
                *texts, module, name = texts
                if names and "_make_skeleton" in names[0] and texts:
                    return texts[0]
                if "_make_skeleton" in name:
                    names.clear()
                texts.clear()
                names.append(f"{module}.{name}")
                if module.partition(".")[0] not in _PLAIN_MODULES:
                    return names[-1]
            if pushed:
                texts.append(pushed)
    return names[0] if names else ""
