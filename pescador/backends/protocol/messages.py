"""The form of the messages that a worker process sends.

A message holds entries of any streams::

    header   kind 'I', number of entries, seconds that the worker has waited and bytes it has copied so far,
             and the record (segment, offset, size) with the bodies, if they are not in the message
    entries  of each: stream, schema, number of items, size of the body of each, and the record with the body
             of a large item, which has an entry of its own
    bodies   of the small items, one after the other

An item whose arrays were made in shared memory is *scattered*: each of its arrays is a record of its own
(a small one is in the inline body), and a table at the head of the inline body says where they are.

An entry of the schema END or FAILURE ends its stream. Other kinds of message define a schema ('S') or
announce a segment whose descriptor comes along ('M') or its end ('D'); 'X' holds the last words of a
worker that cannot go on.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple

from ...exceptions import WorkerError

__all__ = [
    "END",
    "ENTRY",
    "FAILURE",
    "FLAT",
    "HEADER",
    "MAX_ITEMS",
    "AnyExtent",
    "Entry",
    "Extent",
    "Header",
    "entries",
    "flat",
    "header",
    "pack_extents",
    "unpack_extents",
]

HEADER: Final = struct.Struct("<cHdQIQQ")
ENTRY: Final = struct.Struct("<QIIIIQQ")
ENTRY_SIZE: Final = ENTRY.size
MAX_ITEMS: Final = 1 << 10  # of a message

SCATTERED: Final = 0x40000000  # added to the schema of a scattered item
FAILURE: Final = 0xFFFFFFFE
END: Final = 0xFFFFFFFF

ITEMS: Final = b"I"
SCHEMA: Final = b"S"
SEGMENT: Final = b"M"
NO_SEGMENT: Final = b"D"
LAST_WORDS: Final = b"X"


class Extent(NamedTuple):
    """Where a record is."""

    segment: int  # 0: there is no record
    offset: int
    n_bytes: int


AnyExtent = tuple[int, int, int]
"""An Extent, or the same without names, which takes a third of the time to make."""

NOWHERE: Final = Extent(0, 0, 0)


FLAT: Final = struct.Struct("=QQQ")
"""An extent, in the form of an array of integers."""


def flat(extents: Iterable[AnyExtent]) -> bytes:
    """Return extents as bytes, of which FLAT makes extents again."""
    return array("Q", chain.from_iterable(extents)).tobytes()


WANT: Final = struct.Struct("=QQ")
"""What goes through a wake-up pipe: which stream the consumer wants, and how many messages had come."""

_EXTENT: Final = struct.Struct("<IQQ")


def pack_extents(extents: Sequence[Extent]) -> bytes:
    """Return the table of a scattered item."""
    return b"".join([_COUNT.pack(len(extents)), *(_EXTENT.pack(*extent) for extent in extents)])


def unpack_extents(body: Any) -> tuple[list[Extent], int]:
    """Return the table of a scattered item, and its size."""
    try:
        (n,) = _COUNT.unpack_from(body)
        extents = [Extent(*_EXTENT.unpack_from(body, _COUNT.size + i * _EXTENT.size)) for i in range(n)]
    except struct.error as error:
        raise WorkerError(f"a worker sent a broken table: {error}") from None
    return extents, _COUNT.size + n * _EXTENT.size


_COUNT: Final = struct.Struct("<H")


Entry = tuple[int, int, list[Any], AnyExtent]
"""Stream, schema, inline body of each item, record."""


class Header(NamedTuple):
    """The head of a message with items."""

    kind: bytes
    n_entries: int
    waited: float
    copied: int
    bodies: Extent


def header(message: memoryview) -> Header:
    """Return the head of a message of kind 'I'."""
    try:
        kind, n_entries, waited, copied, *bodies = HEADER.unpack_from(message)
    except struct.error as error:
        raise WorkerError(f"a worker sent a broken message: {error}") from None
    return Header(kind, n_entries, waited, copied, Extent(*bodies))


def entries(message: memoryview, bodies: memoryview | None = None) -> list[Entry]:
    """Return the entries of a message of kind 'I', whose bodies are in it, or else in `bodies`."""
    n_entries = header(message).n_entries
    table_end = HEADER.size + n_entries * ENTRY_SIZE
    if table_end > len(message):
        raise WorkerError(f"a worker sent a broken message: {n_entries} entries in {len(message)} bytes")
    if bodies is None:
        bodies = message[table_end:]
    found: list[Entry] = []
    start = 0
    for entry in ENTRY.iter_unpack(message[HEADER.size : table_end]):
        stream, schema, n_items, n_inline, segment, _, _ = entry
        if segment and n_items == 1 and not n_inline:
            found.append((stream, schema, _NO_BODY, entry[4:]))
            continue
        end = start + n_items * n_inline
        if segment or n_items > MAX_ITEMS or end > len(bodies):
            raise WorkerError(
                f"a worker sent a broken message: {n_items} items end at {end} of {len(bodies)} bytes"
            )
        ends = [start + i * n_inline for i in range(n_items + 1)]
        found.append((stream, schema, [bodies[i:j] for i, j in pairwise(ends)], NOWHERE))
        start = end
    return found


_NO_BODY: Final = [b""]
