"""The backend: its options."""

from __future__ import annotations

from importlib.util import find_spec

from ...exceptions import ParameterError
from ..consumer.process_pool import ProcessBackend
from ..protocol.connection import Connection
from ..protocol.transport import Transport
from ..system.blas import Threads

__all__ = ["ZMQBackend"]

if find_spec("zmq") is None:  # which is imported when a pool opens, but missed now
    raise ModuleNotFoundError("No module named 'zmq'", name="zmq")


class ZMQBackend(ProcessBackend):
    """Runs streams in processes that send their items through sockets.

    Of each worker, 32 MiB of large items are under way at most, or one item that is larger.

    Parameters
    ----------
    start_method : {'forkserver', 'spawn', 'fork'}, optional
        How workers start.
    min_port, max_port : int
        Range from which a port is taken for each worker.
    max_tries : int
        How many ports are tried.
    copy : bool
        Whether ZeroMQ copies what it sends.
    blas_threads : int, 'auto' or None
        How many threads the numeric libraries of a worker use.
    """

    preload = (f"{__package__}.listening",)

    def __init__(
        self,
        start_method: str | None = None,
        min_port: int = 49152,
        max_port: int = 65535,
        max_tries: int = 100,
        copy: bool = False,
        blas_threads: Threads = "auto",
    ) -> None:
        super().__init__(start_method, blas_threads)
        if not 1 <= min_port <= max_port <= 65535:
            raise ParameterError(
                f"ports are from 1 to 65535, and min_port is not above max_port: got {min_port} to {max_port}"
            )
        if max_tries < 1:
            raise ParameterError(f"max_tries must be at least 1, got {max_tries}")
        self._ports = (min_port, max_port, max_tries)
        self._copy = bool(copy)

    def transport(self, connection: Connection) -> Transport:
        from .listening import listen  # preloaded

        return listen(connection, *self._ports, copy=self._copy)
