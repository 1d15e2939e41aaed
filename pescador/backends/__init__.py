"""Where streams run in the background.

base.py      the contract of a backend
serial.py    in this thread, for debugging
thread.py    in threads of this process
shm/         in processes, arrays through shared memory
zmq/         in processes, everything through a ZeroMQ socket
ray/         on the machines of a Ray cluster

What several of them share, by where it runs:

consumer/    in the consumer: open streams, workers as they are seen from there, recipes that are sent
worker/      in a worker: its loop, what it sends, arrays made in place, recipes that came
processes/   starting, watching and ending processes
protocol/    what a consumer and its workers say to each other
system/      what the machine gives: owners of processes, shared memory, orphans

Imports go one way: shm, zmq, ray, thread → consumer → processes → worker → protocol → system.

Third parties add backends with :func:`register`, or with an entry point in the group
``pescador.backends`` that names a subclass of :class:`pescador.backends.base.Backend`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from ..exceptions import ParameterError
from .base import Backend, Pool, Stream, StreamStats, WorkerStats
from .system import search_path  # noqa: F401  # now, for it remembers the working directory

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["Backend", "Pool", "Stream", "StreamStats", "WorkerStats", "get", "names", "register"]

_backends: dict[str, type[Backend] | str] = {
    "ray": "pescador.backends.ray.backend:RayBackend",
    "serial": "pescador.backends.serial:SerialBackend",
    "shm": "pescador.backends.shm.backend:ShmBackend",
    "thread": "pescador.backends.thread:ThreadBackend",
    "zmq": "pescador.backends.zmq.backend:ZMQBackend",
}
_OURS = dict(_backends)


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
    return sorted({*_backends, *(entry.name for entry in _entry_points())})


def get(name: str) -> type[Backend]:
    """Return a backend by its name, importing it if need be.

    Raises
    ------
    PescadorError
        If there is no such backend, or something it needs is not installed.
    """
    backend: type[Backend] | str | None = _backends.get(name)
    if backend is None:
        for entry in _entry_points():
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
            imported = importlib.import_module(module)
        except ImportError as error:
            missing = error.name or str(error)
            extra = f"""pip install "pescador[{name}]\"""" if place == _OURS.get(name) else "install it"
            raise ParameterError(
                f"backend {name!r} needs {missing!r}, which cannot be imported ({error}); "
                f"{extra}, or choose another backend"
            ) from error
        try:
            backend = cast("type[Backend]", getattr(imported, attribute))
        except AttributeError as error:
            raise ParameterError(
                f"backend {name!r} was registered as {place!r}, but {error}; it should be 'module:class'"
            ) from error
        _backends[name] = backend
    return backend


def _entry_points() -> EntryPoints:
    """Return those of other packages."""
    from importlib.metadata import entry_points  # it imports more than pescador, for few programs

    return entry_points(group="pescador.backends")
