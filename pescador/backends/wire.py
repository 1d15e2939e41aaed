"""The form of the messages that a worker process sends.

A message holds entries of any streams::

    header   kind 'I', number of entries, seconds that the worker has waited so far
    entry    stream, schema, size of the inline body, segment, offset, size of the record
    body     of a small item; a large item's is in the record instead
    entry    ...

An entry of the schema END or FAILURE ends its stream. Other kinds of message define a schema ('S') or
announce a segment whose descriptor comes along ('M') or its end ('D'); 'X' holds the last words of a
worker that cannot go on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..exceptions import WorkerError

__all__ = ["END", "ENTRY", "FAILURE", "HEADER", "Entry", "Extent", "entries"]

HEADER: Final = struct.Struct("<cHd")
ENTRY: Final = struct.Struct("<QIIIQQ")

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


NOWHERE: Final = Extent(0, 0, 0)


class Entry(NamedTuple):
    """One item of a message."""

    stream: int
    schema: int
    body: memoryview
    extent: Extent


def entries(message: memoryview) -> Iterator[Entry]:
    """Iterate over the entries of a message of kind 'I'."""
    try:
        _, n_entries, _ = HEADER.unpack_from(message)
        offset = HEADER.size
        for _ in range(n_entries):
            stream, schema, n_inline, *extent = ENTRY.unpack_from(message, offset)
            offset += ENTRY.size
            end = offset + n_inline
            if end > len(message):
                raise struct.error(f"a body ends at {end} in a message of {len(message)} bytes")
            yield Entry(stream, schema, message[offset:end], Extent(*extent))
            offset = end
    except struct.error as error:
        raise WorkerError(f"a worker sent a broken message: {error}") from None
