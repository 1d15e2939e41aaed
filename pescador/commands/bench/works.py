"""The streams that are compared: those of ours, and the user's."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core import Streamer
from ...exceptions import ParameterError
from ...mux import RoundRobinMux, StochasticMux

__all__ = ["WORKS", "Work", "compute", "stream_of"]

Item = dict[str, object]


def _tiny() -> Iterator[Item]:
    x = np.arange(8.0)
    while True:
        yield {"x": x}


def _images() -> Iterator[Item]:
    rows, columns, channels = np.ogrid[:512, :512, :3]
    packed = zlib.compress(((rows * columns // 64 + channels) % 256).astype(np.uint8).tobytes(), 1)
    while True:
        image = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(512, 512, 3)
        yield {"image": image[100:324, 100:324].copy(), "label": 1}


def _large() -> Iterator[Item]:
    # Noise takes longer to draw than new pages take to come, which is now the case and now not.
    rng = np.random.default_rng(0)
    while True:
        yield {"x": rng.standard_normal(1 << 20, np.float32)}


def _slow_open() -> Iterator[Item]:
    time.sleep(0.02)
    while True:
        yield {"x": np.zeros(1000)}


def _computing() -> Iterator[Item]:
    while True:
        yield {"x": compute()}


def _waiting() -> Iterator[Item]:
    while True:
        time.sleep(0.004)
        yield {"x": np.zeros(1000)}


def compute(_: object = None) -> int:
    """Compute in Python for some milliseconds, holding its lock."""
    total = 0
    for i in range(40_000):
        total += i * i % 7
    return total


@dataclass
class Work:
    """A stream, and what its consumer does."""

    what: str
    generator: Callable[[], Iterator[Item]]
    step: float | None = None
    """Seconds that the consumer waits for each item; if None, it computes in Python."""


# The large ones are last: a process does not give back all of the memory that it has used once.
WORKS = {
    "tiny items": Work("an array of 8 numbers; no step", _tiny, 0),
    "images": Work("decoding an image and cutting a piece out of it; the step is 5 ms", _images, 0.005),
    "slow open": Work("streams of 8 items that open in 20 ms; the step is 3.5 ms", _slow_open, 0.0035),
    "CPU-bound": Work("a loop in Python; the step is the same loop", _computing),
    "waiting": Work("4 ms of waiting for each item; the step is 3 ms", _waiting, 0.003),
    "large arrays": Work("an array of noise, drawn in NumPy; the step is 10 ms", _large, 0.01),
}


def stream_of(name: str, n_workers: int) -> Streamer[Any]:
    """Return one of our streams, or the user's."""
    if name not in WORKS:
        return _load(name)
    work = Streamer(WORKS[name].generator)
    if name == "slow open":
        return StochasticMux([work] * 64, 2 * n_workers, 8, dist="constant", random_state=0)
    return RoundRobinMux([work] * n_workers) if n_workers > 1 else work


def _load(name: str) -> Streamer[Any]:
    """Return the stream ``module:name``, which may lie in the current folder."""
    place, _, attribute = name.partition(":")
    if not place or not attribute:
        raise ParameterError(f"a stream is given as module:name, like mymodule:my_stream, but got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        raise ParameterError(
            f"there is no module {place!r}, neither in {os.getcwd()} nor installed"
        ) from None
    try:
        found = getattr(module, attribute)
    except AttributeError:
        streams = [key for key, value in vars(module).items() if isinstance(value, Streamer)]
        known = f"; its streams are {', '.join(streams)}" if streams else ""
        raise ParameterError(f"module {place!r} has no {attribute!r}{known}") from None
    if isinstance(found, Streamer):
        return found
    stream = found
    if callable(found):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise ParameterError(f"{name} must be callable without arguments: {error}") from None
        stream = Streamer(found) if inspect.isgeneratorfunction(found) else found()
    if not isinstance(stream, Streamer):
        kind = "is" if stream is found else "returned"
        raise ParameterError(
            f"{name} {kind} {stream!r:.100}; it must be a Streamer or a mux, or a function without arguments "
            "that returns one or is a generator"
        )
    return stream
