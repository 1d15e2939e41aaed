"""How records lie in frames, and what ZeroMQ needs of the system."""

from __future__ import annotations

import os
import threading
from typing import Any

import zmq

from ...exceptions import PescadorError
from ..protocol.connection import Connection
from ..system.shared_memory import close_all
from ..system.threads import start_thread

__all__ = ["BUDGET", "FRAME_BYTES", "REMEDY", "make_context", "starts"]

# How many bytes of records may be under way; an item that is larger goes alone.
BUDGET = 1 << 25

FRAME_BYTES = (1 << 20) + 4096  # an array of 1 MiB, and what comes with it

# What a context with its sockets takes at most, and one more that pyzmq has for sending without a copy.
N_DESCRIPTORS = 20
N_THREADS = 5

REMEDY = (
    "Is there a loopback interface, is it up ('ip link set lo up'), and does no firewall keep processes of "
    "this machine apart? backend='shm' does without"
)


def make_context(connection: Connection) -> zmq.Context[Any]:
    """Return a context, if there is what ZeroMQ needs: where there is not, it would abort the process."""
    descriptors: list[int] = []
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(N_THREADS)]
    try:
        for _ in range(N_DESCRIPTORS if hasattr(os, "fork") else 0):  # Windows has no such limit
            descriptors.append(os.dup(connection.socket.fileno()))
        for thread in threads:
            start_thread(thread)
    except (OSError, PescadorError, MemoryError) as error:
        raise PescadorError(
            f"ZeroMQ needs up to {N_DESCRIPTORS} file descriptors and {N_THREADS} threads for each worker: "
            f"{error.__cause__ or error}. Raise the limits ('ulimit -n', 'ulimit -u', 'ulimit -v'), or use "
            "backend='thread'"
        ) from error
    finally:
        end.set()
        close_all(descriptors)
        for thread in threads:  # those that are left would be too many when ZeroMQ starts its own
            if thread.ident is not None:
                thread.join()
    return zmq.Context()


def starts(n_bytes: int) -> range:
    """Return where the frames of so many bytes begin."""
    return range(0, n_bytes, FRAME_BYTES)
