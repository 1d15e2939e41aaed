"""The socket that listens for one worker, and what makes the two halves of its transport."""

from __future__ import annotations

import errno
import random
import secrets
from functools import partial
from typing import Any

import zmq

from ...exceptions import PescadorError
from ..protocol.connection import Connection
from ..protocol.transport import Transport
from .frames import FRAME_BYTES, REMEDY, make_context
from .receiver import ZMQReceiver
from .sender import ZMQSender

__all__ = ["listen"]

ADDRESS = "tcp://127.0.0.1"

# Where ZeroMQ asks, within a context, whether to let somebody in.
DOOR = "inproc://zeromq.zap.01"


def listen(connection: Connection, min_port: int, max_port: int, max_tries: int, *, copy: bool) -> Transport:
    """Listen on a port of the range, and return what makes the two halves of a worker's transport.

    Raises
    ------
    PescadorError
        If no port is free, or ZeroMQ has not got what it needs.
    """
    context = make_context(connection)
    try:
        door = context.socket(zmq.REP)
        door.bind(DOOR)
        socket = context.socket(zmq.PULL)
        socket.plain_server = True
        socket.maxmsgsize = FRAME_BYTES
        port = _bind(socket, range(min_port, max_port + 1), max_tries)
    except BaseException:
        context.destroy(0)
        raise
    secret = secrets.token_bytes(32)
    return Transport(
        partial(ZMQSender, address=f"{ADDRESS}:{port}", secret=secret, copy=copy),
        partial(ZMQReceiver, context, socket, door, secret),
    )


def _bind(socket: zmq.Socket[Any], ports: range, max_tries: int) -> int:
    """Have a socket listen on one of the ports, and return that."""
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
        f"no free port from {ports[0]} to {ports[-1]} in {max_tries} tries ({reason}); "
        "widen the range (min_port, max_port) or raise max_tries"
    )
