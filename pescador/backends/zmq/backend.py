"""The backend: its options, and the socket that listens for one worker."""

from __future__ import annotations

import errno
import random
import secrets
from functools import partial
from typing import Any

import zmq

from ...exceptions import ParameterError, PescadorError
from ..consumer.process_pool import ProcessBackend
from ..protocol.connection import Connection
from ..protocol.transport import Transport
from ..system.blas import Threads
from .frames import FRAME_BYTES, REMEDY, make_context
from .receiver import ZMQReceiver
from .sender import ZMQSender

__all__ = ["ZMQBackend"]

ADDRESS = "tcp://127.0.0.1"

# Where ZeroMQ asks, within a context, whether to let somebody in.
DOOR = "inproc://zeromq.zap.01"


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

    preload = (f"{__package__}.sender",)

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
        context = make_context(connection)
        try:
            door = context.socket(zmq.REP)
            door.bind(DOOR)
            socket = context.socket(zmq.PULL)
            socket.plain_server = True
            socket.maxmsgsize = FRAME_BYTES
            port = self._bind(socket)
        except BaseException:
            context.destroy(0)
            raise
        secret = secrets.token_bytes(32)
        return Transport(
            partial(ZMQSender, address=f"{ADDRESS}:{port}", secret=secret, copy=self._copy),
            partial(ZMQReceiver, context, socket, door, secret),
        )

    def _bind(self, socket: zmq.Socket[Any]) -> int:
        """Have a socket listen on a port of the range, and return that."""
        min_port, max_port, max_tries = self._ports
        ports = range(min_port, max_port + 1)
        reason = ""
        # pyzmq's bind_to_random_port would draw from the global state of `random`, which is the user's.
        for port in random.SystemRandom().sample(ports, min(max_tries, len(ports))):
            try:
                socket.bind(f"{ADDRESS}:{port}")
                return port
            except zmq.ZMQError as error:
                reason = str(error)
                if error.errno not in (zmq.EADDRINUSE, errno.EACCES):
                    raise PescadorError(f"cannot listen on {ADDRESS}: {reason}. {REMEDY}") from error
        raise PescadorError(
            f"no free port from {min_port} to {max_port} in {max_tries} tries ({reason}); "
            "widen the range (min_port, max_port) or raise max_tries"
        )
