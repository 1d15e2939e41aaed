"""Items as bytes, for all backends that send them to another process.

An item is encoded as a *layout* and the parts that it says belong into the item's body. A dict of arrays,
the usual item, has a :class:`Schema` as its layout, which says where in the body each array is and how it
looks. It is sent once, ahead of the first of all items that look the same, which refer to it by its number.
Any other item has a :class:`Pickled` of its own: a pickle and its buffers (see :mod:`.pickling`), behind a
table of their lengths.

The worker's main thread encodes, and copies the parts once: into the body, in a message or in the memory of
a transport. Decoding copies nothing, on whichever thread takes the item: arrays are views of the body, which
must be writeable, aligned, and belong to this item alone.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ...exceptions import WorkerError
from ..system.shared_memory import ALIGNMENT, Bytes
from .errors import Unloadable
from .messages import NOWHERE, AnyExtent, Extent, Record, pack_table, unpack_table
from .pickling import PICKLED, Body, Pickled, aligned, dump, load, order_of, pickled, unpickled

__all__ = ["ALIGNED_BYTES", "Decoder", "Encoder", "Layout", "Schema", "aligned_body"]

Array = npt.NDArray[Any]

MAX_FIELDS = 64  # of a schema
MAX_SCHEMAS = 1000  # of an Encoder

# The body of a small item is aligned like a record from this size on. Below, that would take up to a tenth of
# the item's time, and nobody gains by it.
ALIGNED_BYTES = 4096

_NUMBER = struct.Struct("<I")
_ZERO = array("B", [0])


class Field(NamedTuple):
    """Where in the body an array is, and how it looks."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    order: Literal["C", "F"]
    is_scalar: bool

    def view(self, memory: Bytes, offset: int) -> Array:
        """Return the array in some memory."""
        return np.ndarray(self.shape, self.dtype, memory, offset, None, self.order)


class Schema:
    """The layout of dicts of arrays that look the same.

    Attributes
    ----------
    number : int
        Tells the consumer how to decode the body.
    n_bytes : int
        Size of the body.
    is_new : bool
        Whether the consumer must first be sent its definition.
    """

    __slots__ = ("_fields", "_looks", "_paddings", "is_new", "n_bytes", "number")

    def __init__(self, number: int, item: dict[str, Array]) -> None:
        self.number = number
        self.is_new = True
        self._fields: list[Field] = []
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
            offset = aligned(end, value.nbytes)
            is_scalar = isinstance(value, np.generic)
            self._fields.append(Field(key, value.shape, value.dtype, offset, order_of(value), is_scalar))
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
        return _NUMBER.pack(self.number) + dump([tuple(field) for field in self._fields])

    def join(self, parts: Sequence[Array]) -> bytes:
        """Return the body."""
        if len(parts) == 1:
            return parts[0].tobytes("A")
        pieces: list[bytes] = []
        for padding, part in zip(self._paddings, parts, strict=True):
            pieces += (padding, part.tobytes("A"))
        return b"".join(pieces)

    def write(self, parts: Sequence[Array], record: Record) -> None:
        """Copy the parts to where they belong in the memory of a record."""
        if record.layout is not self:
            record.layout = self
            record.views = [field.view(record.memory, field.offset) for field in self._fields]
        if len(parts) == 1:  # without a loop, which would take as long as to copy 10 kB
            record.views[0][...] = parts[0]
            return
        for view, part in zip(record.views, parts):  # noqa: B905  # strict=True takes longer
            view[...] = part

    def scatter(self, parts: Sequence[Array], place: Callable[[Array, Field], Extent]) -> bytes:
        """Return the body of a scattered item: the table, and the parts that are no records of their own.

        Parameters
        ----------
        parts : sequence of arrays
        place : callable
            Puts a part where it is to be, and returns the record; NOWHERE if it belongs into the body.
        """
        extents: list[Extent] = []
        pieces: list[bytes] = []
        end = 0
        for field, part in zip(self._fields, parts, strict=True):
            extent = place(part, field)
            extents.append(extent)
            if extent is NOWHERE:
                offset = _rounded(end)
                pieces += (bytes(offset - end), part.tobytes("A"))
                end = offset + part.nbytes
        table = pack_table(extents)
        return b"".join([table, bytes(-len(table) % ALIGNMENT), *pieces])


def aligned_body(body: memoryview) -> memoryview:
    """Return a copy of the body of a small item, aligned as a record is."""
    n_bytes = len(body)
    memory = _ZERO * (n_bytes + ALIGNMENT)  # an array tells its address in a tenth of NumPy's time
    start = -memory.buffer_info()[0] % ALIGNMENT
    copy = memoryview(memory)[start : start + n_bytes]
    copy[:] = body
    return copy


Layout = Schema | Pickled
"""How the parts of an item lie in its body."""


class Encoder:
    """The worker's half. Remembers the schemas that were sent."""

    def __init__(self) -> None:
        self._schemas: dict[Any, Schema] = {}
        self._last: Schema | None = None

    def encode(self, item: Any) -> tuple[Layout, Sequence[Any]]:
        """Return the layout of an item and its parts, which are, or refer to, the item's own memory."""
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
        return pickled(item)


class Decoder:
    """The consumer's half. Remembers the schemas that came."""

    def __init__(self) -> None:
        # Of each field a plain tuple, which is taken apart in less time than one with names.
        self._schemas: dict[int, list[tuple[Any, ...]]] = {}
        self._unloadable: dict[int, Unloadable] = {}

    def define(self, definition: bytes | memoryview) -> None:
        """Take note of a schema."""
        (number,) = _NUMBER.unpack_from(definition)
        try:
            self._schemas[number] = load(memoryview(definition)[_NUMBER.size :], [])
        except Unloadable as error:  # a dtype may have anything as its metadata
            self._unloadable[number] = error

    def decode(self, schema: int, body: Body) -> Any:
        """Return the item whose body this is.

        Parameters
        ----------
        schema : int
            As it was sent.
        body : Body
            It belongs to the item from now on.

        Raises
        ------
        Unloadable
            From whatever the item raises when it is loaded.
        WorkerError
            If these bytes are no such item.
        """
        if schema == PICKLED:
            return unpickled(body)
        item = {}
        try:
            for key, shape, dtype, offset, order, is_scalar in self._schemas[schema]:
                array: Array = np.ndarray(shape, dtype, body, offset, None, order)
                item[key] = array[()] if is_scalar else array
        except KeyError:
            raise self._unknown(schema) from None
        except TypeError as error:
            raise _does_not_fit(schema, body, error) from error
        return item

    def decode_scattered(
        self, schema: int, body: bytearray | memoryview, view: Callable[[AnyExtent], Bytes]
    ) -> Any:
        """Return an item whose arrays are in records of their own, which `view` returns."""
        try:
            fields = self._schemas[schema]
        except KeyError:
            raise self._unknown(schema) from None
        extents, end = unpack_table(body)
        item = {}
        try:
            for (key, shape, dtype, _, order, is_scalar), extent in zip(fields, extents, strict=True):
                if extent[0]:
                    item[key] = np.ndarray(shape, dtype, view(extent), 0, None, order)
                    continue
                offset = _rounded(end)
                array: Array = np.ndarray(shape, dtype, body, offset, None, order)
                end = offset + array.nbytes
                item[key] = array[()] if is_scalar else array
        except (TypeError, ValueError) as error:
            raise _does_not_fit(schema, body, error) from error
        return item

    def _unknown(self, schema: int) -> Exception:
        unloadable = self._unloadable.get(schema)
        if unloadable is not None:
            return Unloadable(unloadable.kind, unloadable.error)
        return WorkerError(f"a worker sent an item of the unknown schema {schema}")


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
            look += (key, id(dtype), dtype.names, value.shape, value.ndim > 1 and order_of(value))
        # Each type of these scalars has one dtype.
        elif isinstance(value, np.generic) and value.dtype.kind in "biufc" and kind is value.dtype.type:
            look += (key, id(value.dtype), kind)
        else:
            return None
        if type(key) is not str:
            return None
    return tuple(look)


def _rounded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _does_not_fit(schema: int, body: Body, error: Exception) -> WorkerError:
    return WorkerError(f"a worker sent {len(body)} bytes that do not fit schema {schema}: {error}")
