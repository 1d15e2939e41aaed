"""Items as bytes, for all backends that send them to another process.

An item is encoded as a *schema* number and a list of chunks with their offsets in the item's body. A
dict of arrays, the usual item, has a schema of its own, which says where in the body each array is and
how it looks; it is sent once for all items that look the same. Everything else has schema 0: a pickle
(protocol 5) and its out-of-band buffers, behind a table of their lengths.

The body is copied once, from the chunks into the transport's memory. Decoding copies nothing: arrays
are views of the body, which must be writeable, aligned, and belong to this item alone.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, Literal

import cloudpickle
import numpy as np

from ..exceptions import WorkerError
from .ring import ALIGNMENT
from .segment import Bytes

__all__ = ["Decoder", "Encoded", "Encoder", "dump", "join_chunks", "write_chunks"]

PICKLED = 0  # the schema of everything that has none

MAX_FIELDS = 64
MAX_SCHEMAS = 1000

_FIELD_ALIGNMENT = 16  # bytes, for fields of less than ALIGNMENT bytes
_COUNT = struct.Struct("<I")

Chunk = tuple[int, Any]  # offset in the body; an array, or a bytes-like object


class Encoded:
    """An item, ready to be copied into the memory of a transport."""

    __slots__ = ("chunks", "definition", "n_bytes", "schema")

    def __init__(
        self, schema: int, n_bytes: int, chunks: list[Chunk], definition: bytes | None = None
    ) -> None:
        self.schema = schema
        self.n_bytes = n_bytes
        self.chunks = chunks
        self.definition = definition  # of the schema, to be sent before the item; None if it was sent


class _Field:
    """Where in the body an array is, and how it looks."""

    __slots__ = ("dtype", "is_scalar", "key", "n_bytes", "offset", "order", "shape")

    def __init__(self, key: Any, array: Any, order: Literal["C", "F"], offset: int) -> None:
        self.key = key
        self.dtype = array.dtype
        self.shape = array.shape
        self.order = order
        self.offset = offset
        self.n_bytes = array.nbytes
        self.is_scalar = isinstance(array, np.generic)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.key, self.dtype, self.shape, self.order, self.offset, self.n_bytes, self.is_scalar

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.key, self.dtype, self.shape, self.order, self.offset, self.n_bytes, self.is_scalar = state


class _Schema:
    __slots__ = ("dtypes", "fields", "n_bytes", "number")

    def __init__(self, number: int, item: dict[str, Any]) -> None:
        self.number = number
        self.fields: list[_Field] = []
        # Looks are compared by the identity of dtypes, which keeps what equality does not (a C long
        # is no long long, metadata); so these must not be freed, and their ids not be used again.
        self.dtypes = [value.dtype for value in item.values()]
        end = 0
        for key, value in item.items():
            field = _Field(key, value, _order(value), _aligned(end, value.nbytes))
            self.fields.append(field)
            end = field.offset + field.n_bytes
        self.n_bytes = end


class Encoder:
    """The worker's half. Remembers the schemas that were sent."""

    def __init__(self) -> None:
        self._schemas: dict[Any, _Schema] = {}
        self._n_schemas = 0

    def encode(self, item: Any) -> Encoded:
        """Return the chunks of an item; they refer to its memory."""
        look = _look(item)
        if look is None:
            return _pickled(item)
        schema = self._schemas.get(look)
        definition = None
        if schema is None:
            if len(self._schemas) >= MAX_SCHEMAS:  # items that all look different are not worth it
                return _pickled(item)
            self._n_schemas += 1
            schema = self._schemas[look] = _Schema(self._n_schemas, item)
            definition = dump((schema.number, schema.n_bytes, schema.fields))
        chunks = [(field.offset, value) for field, value in zip(schema.fields, item.values(), strict=True)]
        return Encoded(schema.number, schema.n_bytes, chunks, definition)


class Decoder:
    """The consumer's half."""

    def __init__(self) -> None:
        self._schemas: dict[int, list[_Field]] = {}

    def define(self, definition: bytes | memoryview) -> None:
        """Take note of a schema."""
        number, _, fields = pickle.loads(definition)
        self._schemas[number] = fields

    def decode(self, schema: int, body: Any) -> Any:
        """Return the item whose body this is.

        Parameters
        ----------
        schema : int
            As it was sent.
        body : bytearray or array of uint8
            Writeable memory that belongs to the item from now on.
        """
        if schema == PICKLED:
            return _unpickled(body)
        fields = self._schemas.get(schema)
        if fields is None:
            raise WorkerError(f"a worker sent an item of the unknown schema {schema}")
        item = {}
        for field in fields:
            array: Any = np.ndarray(field.shape, field.dtype, body, field.offset, None, field.order)
            item[field.key] = array[()] if field.is_scalar else array
        return item


def write_chunks(chunks: list[Chunk], body: Bytes) -> None:
    """Copy the chunks of an item to where they belong in its body."""
    for offset, chunk in chunks:
        if isinstance(chunk, np.ndarray):
            target: Any = np.ndarray(chunk.shape, chunk.dtype, body, offset, None, _order(chunk))
            np.copyto(target, chunk, casting="no")
        else:
            data = np.frombuffer(chunk, np.uint8)
            body[offset : offset + len(data)] = data


def join_chunks(chunks: list[Chunk]) -> bytes:
    """Return the body of a small item."""
    parts: list[bytes | memoryview] = []
    end = 0
    for offset, chunk in chunks:
        if offset > end:
            parts.append(bytes(offset - end))
        data = chunk.tobytes("A") if isinstance(chunk, np.ndarray | np.generic) else chunk
        parts.append(data)
        end = offset + len(data)
    return b"".join(parts)


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
            look += (key, id(dtype), value.shape, value.ndim > 1 and _order(value))
        elif isinstance(value, np.generic) and value.dtype.kind in "biufcmM":
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
    alignment = ALIGNMENT if n_bytes >= ALIGNMENT else _FIELD_ALIGNMENT
    return -(-offset // alignment) * alignment


def _pickled(item: Any) -> Encoded:
    """Encode as a table (number of parts, length of each) and the parts: the pickle, then the buffers."""
    buffers: list[pickle.PickleBuffer] = []
    data = dump(item, buffers)
    parts = [memoryview(data), *(buffer.raw() for buffer in buffers)]
    table = struct.pack(f"<I{len(parts)}Q", len(parts), *(part.nbytes for part in parts))
    chunks: list[Chunk] = [(0, table)]
    end = len(table)
    for part in parts:
        offset = _aligned(end, part.nbytes)
        if part.nbytes:
            chunks.append((offset, part))
        end = offset + part.nbytes
    return Encoded(PICKLED, end, chunks)


def _unpickled(body: Any) -> Any:
    memory = memoryview(body)
    if len(memory) < _COUNT.size:
        raise WorkerError(f"a worker sent a broken item of {len(memory)} bytes")
    n_parts = _COUNT.unpack_from(memory, 0)[0]
    end = _COUNT.size + 8 * n_parts
    if end > len(memory):
        raise WorkerError(f"a worker sent a broken item: a table of {n_parts} parts in {len(memory)} bytes")
    parts = []
    for n_bytes in struct.unpack_from(f"<{n_parts}Q", memory, _COUNT.size):
        offset = _aligned(end, n_bytes)
        end = offset + n_bytes
        if end > len(memory):
            raise WorkerError(f"a worker sent a broken item: {end} bytes in a body of {len(memory)}")
        parts.append(memory[offset:end])
    return pickle.loads(parts[0], buffers=parts[1:])
