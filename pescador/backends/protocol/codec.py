"""Items as bytes, for all backends that send them to another process.

An item is encoded as a *layout* and the parts that it says belong into the item's body. A dict of
arrays, the usual item, has a :class:`Schema` as its layout, which says where in the body each array is
and how it looks; it is sent once for all items that look the same. Everything else is a
:class:`Pickled`: a pickle (protocol 5) and its out-of-band buffers, behind a table of their lengths.

The body is copied once, from the parts into the transport's memory. Decoding copies nothing: arrays
are views of the body, which must be writeable, aligned, and belong to this item alone.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import cloudpickle
import numpy as np

from ...exceptions import WorkerError
from ..shm.ring import ALIGNMENT
from ..system.shared_memory import Bytes
from . import tensors
from .errors import Unloadable
from .messages import NOWHERE, Extent, pack_extents, unpack_extents

__all__ = ["Decoder", "Encoder", "Layout", "Pickled", "Record", "Schema", "dump"]

PICKLED = 0  # the number of all layouts that are no schema

MAX_FIELDS = 64
MAX_SCHEMAS = 1000

_SMALL_ALIGNMENT = 16  # bytes, for parts of less than ALIGNMENT bytes
_COUNT = struct.Struct("<I")
_NUMBER = struct.Struct("<I")


class Record:
    """Memory for a body, the sender's side.

    Where the memory is used again and again, its views are, too: making them takes longer than to copy 16 kB.
    """

    __slots__ = ("extent", "layout", "memory", "n_bytes", "offset", "views")

    def __init__(self, extent: Extent, memory: Bytes) -> None:
        self.extent = extent
        self.offset = extent.offset  # at hand, for it takes longer to get at them in a tuple with names
        self.n_bytes = extent.n_bytes
        self.memory = memory
        self.layout: Layout | None = None  # of the views
        self.views: list[Any] = []


class Layout(ABC):
    """How the parts of an item lie in its body.

    Attributes
    ----------
    number : int
        Tells the consumer how to decode the body.
    n_bytes : int
        Size of the body.
    is_new : bool
        Whether the consumer must first be sent its definition.
    """

    __slots__ = ("is_new", "n_bytes", "number")

    is_new: bool
    n_bytes: int
    number: int

    @abstractmethod
    def join(self, parts: Sequence[Any]) -> bytes:
        """Return the body."""

    @abstractmethod
    def write(self, parts: Sequence[Any], record: Record) -> None:
        """Copy the parts to where they belong in the memory of a record."""


class _Field:
    """Where in the body an array is, and how it looks."""

    __slots__ = ("dtype", "is_scalar", "key", "n_bytes", "offset", "order", "shape")

    def __init__(self, key: str, array: Any, offset: int) -> None:
        self.key = key
        self.dtype = array.dtype
        self.shape = array.shape
        self.order = _order(array)
        self.offset = offset
        self.n_bytes = array.nbytes
        self.is_scalar = isinstance(array, np.generic)

    def view(self, body: Any, offset: int | None = None) -> Any:
        """Return the array in a body, or elsewhere in some memory."""
        if offset is None:
            offset = self.offset
        return np.ndarray(self.shape, self.dtype, body, offset, None, self.order)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.key, self.dtype, self.shape, self.order, self.offset, self.n_bytes, self.is_scalar

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.key, self.dtype, self.shape, self.order, self.offset, self.n_bytes, self.is_scalar = state


class Schema(Layout):
    """The layout of dicts of arrays that look the same."""

    __slots__ = ("_fields", "_looks", "_paddings")

    def __init__(self, number: int, item: dict[str, Any]) -> None:
        self.number = number
        self.is_new = True
        self._fields: list[_Field] = []
        self._paddings: list[bytes] = []  # before each field
        # Looks are compared by the identity of dtypes, which keeps what equality does not (a C long
        # is no long long, metadata); so these must not be freed, and their ids not be used again.
        self._looks = [
            (key, type(value), value.dtype, value.shape, value.strides) for key, value in item.items()
        ]
        if any(value.dtype.names for value in item.values()):
            self._looks.clear()  # fields may be renamed in place, so it fits nothing at once
        end = 0
        for key, value in item.items():
            offset = _aligned(end, value.nbytes)
            self._fields.append(_Field(key, value, offset))
            self._paddings.append(bytes(offset - end))
            end = offset + value.nbytes
        self.n_bytes = end

    def fits(self, item: Any) -> bool:
        """Whether an item surely has this schema; a quick test for what most items are like."""
        if type(item) is not dict or len(item) != len(self._looks):
            return False
        looks = iter(self._looks)
        for key in item:  # the fastest of many ways to write this
            value = item[key]
            name, kind, dtype, shape, strides = next(looks)
            if (
                key is not name
                or type(value) is not kind
                or value.dtype is not dtype
                or value.shape != shape
                or value.strides != strides
            ):
                return False
        return True

    def definition(self) -> bytes:
        """Return what the consumer must know to decode items of this schema."""
        return _NUMBER.pack(self.number) + dump(self._fields)

    def join(self, parts: Sequence[Any]) -> bytes:
        if len(parts) == 1:
            data: bytes = parts[0].tobytes("A")
            return data
        pieces: list[bytes] = []
        for padding, part in zip(self._paddings, parts, strict=True):
            pieces += (padding, part.tobytes("A"))
        return b"".join(pieces)

    def write(self, parts: Sequence[Any], record: Record) -> None:
        if record.layout is not self:
            record.layout = self
            record.views = [field.view(record.memory) for field in self._fields]
        if len(parts) == 1:  # without a loop, which would take as long as to copy 10 kB
            record.views[0][...] = parts[0]
            return
        for view, part in zip(record.views, parts):  # noqa: B905  # strict=True takes longer
            view[...] = part

    def scatter(self, parts: Sequence[Any], place: Callable[[Any, _Field], Extent]) -> bytes:
        """Have each large part placed on its own, and return the inline body."""
        extents = []
        pieces: list[bytes] = []
        end = 0
        for field, part in zip(self._fields, parts, strict=True):
            extent = place(part, field)
            extents.append(extent)
            if extent is NOWHERE:
                offset = _aligned(end, part.nbytes)
                pieces += (bytes(offset - end), part.tobytes("A"))
                end = offset + part.nbytes
        table = pack_extents(extents)
        padding = bytes(_aligned(len(table), ALIGNMENT) - len(table))
        return b"".join([table, padding, *pieces])


class Pickled(Layout):
    """The layout of one pickle: a table (number of parts, length of each), and the parts."""

    __slots__ = ("_offsets",)

    def __init__(self, sizes: Sequence[int]) -> None:
        self.number = PICKLED
        self.is_new = False
        self._offsets: list[int] = []
        end = 0
        for size in sizes:
            self._offsets.append(_aligned(end, size))
            end = self._offsets[-1] + size
        self.n_bytes = end

    def join(self, parts: Sequence[Any]) -> bytes:
        pieces: list[Any] = []
        end = 0
        for offset, part in zip(self._offsets, parts, strict=True):
            pieces += (bytes(offset - end), part)
            end = offset + len(part)
        return b"".join(pieces)

    def write(self, parts: Sequence[Any], record: Record) -> None:
        for offset, part in zip(self._offsets, parts, strict=True):
            record.memory[offset : offset + len(part)] = np.frombuffer(part, np.uint8)


class Encoder:
    """The worker's half. Remembers the schemas that were sent."""

    def __init__(self) -> None:
        self._schemas: dict[Any, Schema] = {}
        self._last: Schema | None = None

    def encode(self, item: Any) -> tuple[Layout, Sequence[Any]]:
        """Return the layout of an item, and its parts, which refer to the item's memory."""
        if self._last is not None and self._last.fits(item):
            return self._last, tuple(item.values())
        look = _look(item)
        if look is not None:
            schema = self._schemas.get(look)
            if schema is not None:
                self._last = schema
                return schema, tuple(item.values())
            if len(self._schemas) < MAX_SCHEMAS:  # items that all look different are not worth it
                schema = self._schemas[look] = Schema(len(self._schemas) + 1, item)
                return schema, tuple(item.values())
        return self.pickle(item)

    @staticmethod
    def pickle(item: Any) -> tuple[Layout, Sequence[Any]]:
        """Encode an item without a schema."""
        buffers: list[pickle.PickleBuffer] = []
        data = dump(item) if type(item) in _ATOMS else _dump_with_arrays(item, buffers)
        raws = [buffer.raw() for buffer in buffers]
        table = struct.pack(f"<I{1 + len(raws)}Q", 1 + len(raws), len(data), *(raw.nbytes for raw in raws))
        parts = [table, data, *raws]
        return Pickled([len(part) for part in parts]), parts


class Decoder:
    """The consumer's half."""

    def __init__(self) -> None:
        self._schemas: dict[int, list[_Field]] = {}
        self._plain: dict[int, list[tuple[Any, ...]]] = {}  # what most items need of these
        self._unloadable: dict[int, Unloadable] = {}

    def define(self, definition: bytes | memoryview) -> None:
        """Take note of a schema."""
        (number,) = _NUMBER.unpack_from(definition)
        try:
            fields = _load(memoryview(definition)[_NUMBER.size :], [])
        except Unloadable as error:  # a dtype may have anything as its metadata
            self._unloadable[number] = error
            return
        self._schemas[number] = fields
        self._plain[number] = [
            (field.key, field.shape, field.dtype, field.offset, field.order, field.is_scalar)
            for field in fields
        ]

    def decode(self, schema: int, body: Any) -> Any:
        """Return the item whose body this is.

        Parameters
        ----------
        schema : int
            As it was sent.
        body : bytearray or array of uint8
            Writeable memory that belongs to the item from now on.

        Raises
        ------
        Unloadable
            From whatever the item raises when it is loaded.
        """
        if schema == PICKLED:
            return _unpickled(body)
        item = {}
        try:
            for key, shape, dtype, offset, order, is_scalar in self._plain[schema]:
                array: Any = np.ndarray(shape, dtype, body, offset, None, order)
                item[key] = array[()] if is_scalar else array
        except KeyError:
            raise self._unknown(schema) from None
        except TypeError as error:
            raise _does_not_fit(schema, body, error) from error
        return item

    def decode_scattered(self, schema: int, body: bytearray, view: Callable[[Extent], Bytes]) -> Any:
        """Return an item whose arrays are in records of their own, which `view` returns."""
        extents, end = unpack_extents(body)
        start = end = _aligned(end, ALIGNMENT)
        item = {}
        try:
            for field, extent in zip(self._fields(schema), extents, strict=True):
                if extent.segment:
                    item[field.key] = field.view(view(extent), 0)
                    continue
                offset = start + _aligned(end - start, field.n_bytes)
                end = offset + field.n_bytes
                array = field.view(body, offset)
                item[field.key] = array[()] if field.is_scalar else array
        except (TypeError, ValueError) as error:
            raise _does_not_fit(schema, body, error) from error
        return item

    def _fields(self, schema: int) -> list[_Field]:
        try:
            return self._schemas[schema]
        except KeyError:
            raise self._unknown(schema) from None

    def _unknown(self, schema: int) -> Exception:
        unloadable = self._unloadable.get(schema)
        if unloadable is not None:
            return Unloadable(unloadable.kind, unloadable.error)
        return WorkerError(f"a worker sent an item of the unknown schema {schema}")


def dump(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle `value`; what plain pickle can't do (lambdas, classes of a script) cloudpickle does."""
    callback = None if buffers is None else buffers.append
    try:
        return pickle.dumps(value, 5, buffer_callback=callback)
    except Exception:
        if buffers is not None:
            buffers.clear()
        data: bytes = cloudpickle.dumps(value, 5, buffer_callback=callback)
        return data


_ATOMS = frozenset({bool, bytes, float, int, str, type(None)})


def _dump_with_arrays(item: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    for kind in (_Pickler, _CloudPickler):
        file = io.BytesIO()
        try:
            kind(file, 5, buffer_callback=buffers.append).dump(item)
            break
        except Exception:
            if kind is _CloudPickler:
                raise
            buffers.clear()
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return _reduced(value)


class _CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def reducer_override(self, value: Any) -> Any:
        reduced = _reduced(value)
        return super().reducer_override(value) if reduced is NotImplemented else reduced


def _reduced(value: Any) -> Any:
    """Return how an array or a tensor is made again; NotImplemented where it says so itself."""
    if type(value) is np.ndarray:
        return _reduced_array(value)
    return tensors.reduced(value) if tensors.is_tensor(value) else NotImplemented


def _reduced_array(array: Any) -> Any:
    """Return how an array is made again, where NumPy's own pickle does not do.

    That keeps read-only arrays read-only, copies dates twice, and makes big-endian dates and strided
    big-endian arrays native.
    """
    dtype, flags = array.dtype, array.flags
    if dtype.hasobject or (flags.writeable and flags.forc and dtype.kind not in "mM"):
        return NotImplemented
    order = _order(array)
    if not array.nbytes:
        return np.ndarray, (array.shape, dtype, None, 0, None, order)
    if not (flags.writeable and flags.forc):
        array = array.copy(order)
    memory = array.reshape(-1, order=order).view(np.uint8)
    return np.ndarray, (array.shape, dtype, pickle.PickleBuffer(memory), 0, None, order)


def _look(item: Any) -> tuple[Any, ...] | None:
    """Return what items of the same schema have in common; None for an item that has no schema."""
    if type(item) is not dict or not 0 < len(item) <= MAX_FIELDS:
        return None
    look: list[Any] = []
    for key, value in item.items():
        kind = type(value)
        if kind is np.ndarray:
            dtype = value.dtype
            if dtype.hasobject:
                return None
            look += (key, id(dtype), dtype.names, value.shape, value.ndim > 1 and _order(value))
        elif (
            isinstance(value, np.generic) and value.dtype.kind in "biufc" and kind is value.dtype.type
        ):  # of which each type has one dtype
            look += (key, id(value.dtype), kind)
        else:
            return None
        if type(key) is not str:
            return None
    return tuple(look)


def _order(array: Any) -> Literal["C", "F"]:
    flags = array.flags
    return "F" if flags.f_contiguous and not flags.c_contiguous else "C"


def _aligned(offset: int, n_bytes: int) -> int:
    alignment = ALIGNMENT if n_bytes >= ALIGNMENT else _SMALL_ALIGNMENT
    return -(-offset // alignment) * alignment


def _does_not_fit(schema: int, body: Any, error: Exception) -> WorkerError:
    return WorkerError(f"a worker sent {len(body)} bytes that do not fit schema {schema}: {error}")


def _unpickled(body: Any) -> Any:
    memory = memoryview(body)
    if len(memory) < _COUNT.size:
        raise WorkerError(f"a worker sent a broken item of {len(memory)} bytes")
    n_parts = _COUNT.unpack_from(memory, 0)[0]
    end = _COUNT.size + 8 * n_parts
    if not n_parts or end > len(memory):
        raise WorkerError(f"a worker sent a broken item: a table of {n_parts} parts in {len(memory)} bytes")
    parts = []
    for n_bytes in struct.unpack_from(f"<{n_parts}Q", memory, _COUNT.size):
        offset = _aligned(end, n_bytes)
        end = offset + n_bytes
        if end > len(memory):
            raise WorkerError(f"a worker sent a broken item: {end} bytes in a body of {len(memory)}")
        parts.append(memory[offset:end])
    return _load(parts[0], parts[1:])


def _load(data: memoryview, buffers: list[memoryview]) -> Any:
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


_PLAIN_MODULES = frozenset({"builtins", "cloudpickle", "collections", "copyreg", "numpy", "types"})


def _first_type(data: bytes) -> str:
    """Return the name of the first class or function in a pickle that is not of every pickle, '' if none is.

    That is the item's own type, or one of what is in it. Of a class that cloudpickle sends along, its name is
    the first text between the second and the third name: those of the maker, of a metaclass, and of a base.
    """
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
                pushed = memo[int(argument)]  # type: ignore[arg-type]
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
