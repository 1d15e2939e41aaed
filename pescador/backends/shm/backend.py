"""The backend: its options, and what makes its two halves."""

from __future__ import annotations

from functools import partial

from ...exceptions import ParameterError
from ..consumer.process_pool import ProcessBackend
from ..protocol.connection import Connection
from ..protocol.transport import Transport
from ..system.blas import Threads
from .receiver import RingReceiver
from .sender import RingSender

__all__ = ["ShmBackend"]


class ShmBackend(ProcessBackend):
    """Runs streams in processes that share memory with the consumer.

    Parameters
    ----------
    start_method : {'forkserver', 'spawn', 'fork'}, optional
        How workers start.
    ring_bytes : int, optional
        Size of each worker's ring. If not given, eight times the size of the items, at least 16 MiB
        and at most 256 MiB, and at most an eighth of the memory that is free.
    blas_threads : int, 'auto' or None
        How many threads the numeric libraries of a worker use.
    """

    preload = (f"{__package__}.sender",)

    def __init__(
        self,
        start_method: str | None = None,
        ring_bytes: int | None = None,
        blas_threads: Threads = "auto",
    ) -> None:
        super().__init__(start_method, blas_threads)
        if ring_bytes is not None and (not isinstance(ring_bytes, int) or ring_bytes < 4096):
            raise ParameterError(
                f"ring_bytes must be None or a whole number from 4096 on, got {ring_bytes!r}"
            )
        self._ring_bytes = ring_bytes

    def transport(self, connection: Connection) -> Transport:
        return Transport(partial(RingSender, ring_bytes=self._ring_bytes), RingReceiver)
