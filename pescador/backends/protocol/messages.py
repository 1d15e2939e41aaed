"""The form of the messages that a worker process sends, and of what goes through its wake-up socket.

The first byte of a message says of what kind it is. One of kind 'I' holds entries of any streams, of which
each stands for one item or several::

    header   kind, number of entries, seconds that the worker has waited and bytes that it has copied so far
    entries  of each: stream, schema, number of items, size of the body of each, and the record with the body
             of a large item, which has an entry of its own
    bodies   of the small items, one after the other

An item whose arrays were made in shared memory is *scattered*: each of its arrays is a record of its own
(a small one is in the item's body), and a table at the head of the body says where they are.

An entry of the schema END or FAILURE ends its stream; one of SNAPSHOT says where it stands after the items
before. Other kinds of message define a schema ('S') or announce a segment whose descriptor comes along ('M')
or its end ('D'); 'X' holds the last words of a worker that cannot go on.

Wherever it stands, a record is an *extent*: segment, offset and size, of 64 bits each. All numbers are in the
order of this machine's bytes, for messages do not leave it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from ...exceptions import WorkerError
from ..system.shared_memory import Bytes

__all__ = [
    "END", "ENTRY", "FAILURE", "HEADER", "ITEMS", "LAST_WORDS", "NOWHERE", "NO_SEGMENT", "SCATTERED",
    "SCHEMA", "SEGMENT", "SNAPSHOT", "WANT", "AnyExtent", "Extent", "Record", "pack_extents", "pack_table",
    "unpack_extents", "unpack_items", "unpack_table",
]  # fmt: skip

ITEMS: Final = b"I"
SCHEMA: Final = b"S"
SEGMENT: Final = b"M"
NO_SEGMENT: Final = b"D"
LAST_WORDS: Final = b"X"

EXTENT: Final = struct.Struct("=QQQ")
HEADER: Final = struct.Struct("=cHdQ")
ENTRY: Final = struct.Struct("=QIIIQQQ")  # the last three are an extent
ENTRY_SIZE: Final = ENTRY.size
WANT: Final = struct.Struct("=QQ")
"""What goes through a wake-up socket: the stream that the consumer wants, and how many messages had come."""
MAX_ITEMS: Final = 1 << 10  # of an entry

SCATTERED: Final = 0x40000000  # added to the schema of a scattered item
SNAPSHOT: Final = 0xFFFFFFFD
FAILURE: Final = 0xFFFFFFFE
END: Final = 0xFFFFFFFF

_COUNT: Final = struct.Struct("=H")
_NO_BODY: Final = [memoryview(b"")]


class Extent(NamedTuple):
    """Where a record is."""

    segment: int  # 0: there is no record
    offset: int
    n_bytes: int


AnyExtent = tuple[int, int, int]
"""An Extent, or the same without names, which takes a third of the time to make."""

Entry = tuple[int, int, list[memoryview], AnyExtent]
"""Stream, schema, the body of each item, and the record that holds the body instead, or NOWHERE.

No tuple with names, for the same reason.
"""

NOWHERE: Final = Extent(0, 0, 0)


class Record:
    """Memory of a transport for the body of an item, the sender's side.

    A transport that uses the memory again gives the same Record, which keeps the views of the memory that a
    schema has written to: making them takes longer than to copy 16 kB.
    """

    __slots__ = ("extent", "layout", "memory", "n_bytes", "offset", "views")

    def __init__(self, extent: Extent, memory: Bytes) -> None:
        self.extent = extent
        self.offset = extent.offset  # at hand, for it takes longer to get at them in a tuple with names
        self.n_bytes = extent.n_bytes
        self.memory = memory
        self.layout: object = None  # whose views these are
        self.views: list[npt.NDArray[Any]] = []


def pack_extents(extents: Iterable[AnyExtent]) -> bytes:
    """Return extents as bytes."""
    return array("Q", chain.from_iterable(extents)).tobytes()


def unpack_extents(data: bytes | memoryview) -> Iterator[AnyExtent]:
    """Return the extents that :func:`pack_extents` made bytes of."""
    return EXTENT.iter_unpack(data)


def pack_table(extents: Collection[AnyExtent]) -> bytes:
    """Return the table of a scattered item."""
    return _COUNT.pack(len(extents)) + pack_extents(extents)


def unpack_table(body: bytes | bytearray | memoryview) -> tuple[list[AnyExtent], int]:
    """Return the extents in the table of a scattered item, and the size of the table."""
    end = _COUNT.size
    if len(body) >= end:
        end += _COUNT.unpack_from(body)[0] * EXTENT.size
    if len(body) < end:
        raise WorkerError(f"a worker sent a broken table: it ends at {end} of {len(body)} bytes")
    return list(unpack_extents(memoryview(body)[_COUNT.size : end])), end


def unpack_items(message: memoryview) -> tuple[float, int, list[Entry]]:
    """Return what is in a message of kind 'I'.

    Returns
    -------
    waited : float
        Seconds that the worker has waited so far.
    copied : int
        Bytes that it has copied so far.
    entries : list of Entry
    """
    if len(message) < HEADER.size:
        raise WorkerError(f"a worker sent a broken message of {len(message)} bytes")
    _, n_entries, waited, copied = HEADER.unpack_from(message)
    table_end = HEADER.size + n_entries * ENTRY_SIZE
    if table_end > len(message):
        raise WorkerError(f"a worker sent a broken message: {n_entries} entries in {len(message)} bytes")
    bodies = message[table_end:]
    entries: list[Entry] = []
    start = 0
    for entry in ENTRY.iter_unpack(message[HEADER.size : table_end]):
        stream, schema, n_items, n_inline, segment, _, _ = entry
        if segment and n_items == 1 and not n_inline:
            entries.append((stream, schema, _NO_BODY, entry[4:]))
            continue
        end = start + n_items * n_inline
        if segment or n_items > MAX_ITEMS or end > len(bodies):
            raise WorkerError(
                f"a worker sent a broken message: {n_items} items end at {end} of {len(bodies)} bytes"
            )
        ends = [start + i * n_inline for i in range(n_items + 1)]
        entries.append((stream, schema, [bodies[i:j] for i, j in pairwise(ends)], NOWHERE))
        start = end
    return waited, copied, entries
