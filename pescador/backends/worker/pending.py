"""What a worker has encoded and not sent yet, to be sent together.

The worker's main thread adds to it, and the thread that listens for wake-ups of the consumer may send it,
each under the lock of the loop.
"""

from __future__ import annotations

from ..protocol.messages import ENTRY, HEADER, ITEMS, NOWHERE, Extent

__all__ = ["Pending"]

_NO_RUN = (0, 0, 0)


class Pending:
    """The entries of one message with items, see :mod:`..protocol.messages`.

    Successive small items of one stream, schema and size are a *run*, and have one entry.

    Attributes
    ----------
    bodies : list of bytes
        Those of small items.
    n_bytes : int
        Their size.
    extents : list of Extent
        The records of large items.
    n_record_bytes : int
        Their size, and that of scattered items.
    n_items : int
        Number of items, small and large.
    streams : set of int
        Numbers of the streams that they are of.
    """

    __slots__ = (
        "_entries", "_n_run", "_run", "bodies", "extents", "n_bytes", "n_items", "n_record_bytes", "streams"
    )  # fmt: skip

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._run = _NO_RUN  # stream, schema and size of the small items that have no entry yet
        self._n_run = 0  # how many they are
        self.bodies: list[bytes] = []
        self.n_bytes = 0
        self.extents: list[Extent] = []
        self.n_record_bytes = 0
        self.n_items = 0
        self.streams: set[int] = set()

    def add(self, stream: int, schema: int, body: bytes) -> None:
        """Add a small item, or the end of a stream."""
        n_bytes = len(body)
        run = (stream, schema, n_bytes)
        if run != self._run:
            if self._n_run:
                self._end_run()
            self._run = run
            self.streams.add(stream)
        self._n_run += 1
        self.bodies.append(body)
        self.n_bytes += n_bytes
        self.n_items += 1

    def add_record(self, stream: int, schema: int, extent: Extent) -> None:
        """Add a large item."""
        if self._n_run:
            self._end_run()
        segment, offset, n_bytes = extent
        self._entries.append(ENTRY.pack(stream, schema, 1, 0, segment, offset, n_bytes))
        self.streams.add(stream)
        self.extents.append(extent)
        self.n_record_bytes += n_bytes
        self.n_items += 1

    def _end_run(self) -> None:
        stream, schema, n_bytes = self._run
        self._entries.append(ENTRY.pack(stream, schema, self._n_run, n_bytes, *NOWHERE))
        self._run, self._n_run = _NO_RUN, 0

    def message(self, waited: float, copied: int) -> list[bytes]:
        """Return the message, in parts."""
        if self._n_run:
            self._end_run()
        header = HEADER.pack(ITEMS, len(self._entries), waited, copied)
        return [header, *self._entries, *self.bodies]
