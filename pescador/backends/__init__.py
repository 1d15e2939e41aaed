"""Where streams run in the background.

base.py      the contract of a backend
serial.py    in this thread, for debugging
thread.py    in threads of this process
shm.py       in processes, arrays through shared memory
zmq.py       in processes, everything through a ZeroMQ socket

What several of them share:

pool.py      streams, their windows, and how they are spread over workers
worker.py    the loop of a worker, which runs the generators
process.py   a pool of processes: messages, death, statistics
launch.py    starting and ending processes
ending.py    what a worker process does at its end
zygote.py    the process from which workers are forked
recipe.py    recipes as bytes, the consumer's side
loading.py   the worker's side
script.py    the user's script, which workers do not run
mapped.py    arrays in mapped files
world.py     what a worker takes over from its consumer
link.py      messages between two processes
wire.py      the form of these messages
process_main.py    what a worker process runs
process_worker.py  its loop
transport.py how records get from one process to the other
pack.py      what a worker has encoded and not sent yet
codec.py     items as bytes
errors.py    exceptions as bytes
segment.py   shared memory
ring.py      the ring buffer in it
leases.py    what of it is still used, also after a fork
ownership.py what a generator still holds of its items
tensors.py   views of PyTorch's tensors
owner.py     who owns a process or a segment, and whether that is dead
stall.py     what a worker was doing when it stalled
orphans.py   reclaiming what a killed process left

Third parties add backends with :func:`register`, or with an entry point in the group
``pescador.backends`` that names a subclass of :class:`pescador.backends.base.Backend`.
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import entry_points
from typing import cast

from ..exceptions import ParameterError
from .base import Backend, Pool, Stream, StreamStats, WorkerStats

try:
    START_FOLDER = os.getcwd()
    """Where this interpreter started, as far as one can tell, from which relative paths count."""
except OSError:  # it was deleted
    START_FOLDER = ""

__all__ = ["Backend", "Pool", "Stream", "StreamStats", "WorkerStats", "get", "names", "register"]

_backends: dict[str, type[Backend] | str] = {
    "serial": "pescador.backends.serial:SerialBackend",
    "shm": "pescador.backends.shm:ShmBackend",
    "thread": "pescador.backends.thread:ThreadBackend",
    "zmq": "pescador.backends.zmq:ZMQBackend",
}


def register(name: str, backend: type[Backend] | str) -> None:
    """Add a backend, or replace one.

    Parameters
    ----------
    name : str
        What users pass as ``backend=``.
    backend : type or str
        A subclass of :class:`Backend`, or ``"module:name"`` of one, which is imported when it is
        first used.
    """
    _backends[name] = backend


def names() -> list[str]:
    """Return the names of all backends, sorted."""
    return sorted({*_backends, *(entry.name for entry in entry_points(group="pescador.backends"))})


def get(name: str) -> type[Backend]:
    """Return a backend by its name, importing it if need be.

    Raises
    ------
    PescadorError
        If there is no such backend, or something it needs is not installed.
    """
    backend: type[Backend] | str | None = _backends.get(name)
    if backend is None:
        for entry in entry_points(group="pescador.backends"):
            if entry.name == name:
                backend = entry.value
                break
        else:
            raise ParameterError(
                f"unknown backend {name!r}; there are {', '.join(names())}. Others come with packages "
                "that have an entry point in the group 'pescador.backends'"
            )
    if isinstance(backend, str):
        place = backend
        module, _, attribute = place.partition(":")
        try:
            backend = cast("type[Backend]", getattr(importlib.import_module(module), attribute))
        except ImportError as error:
            missing = error.name or str(error)
            raise ParameterError(
                f"backend {name!r} needs {missing!r}, which cannot be imported ({error}); "
                f"install it, or choose another backend"
            ) from error
        except AttributeError as error:
            raise ParameterError(
                f"backend {name!r} was registered as {place!r}, but {error}; it should be 'module:class'"
            ) from error
        _backends[name] = backend
    return backend
