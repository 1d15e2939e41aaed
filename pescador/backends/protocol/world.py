"""What a worker process takes over from its consumer, at each opening: its surroundings, and seeds.

What is not named here is that of a new interpreter: filters of warnings, locale, logging, NumPy's error
state, and whatever was set in other modules.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from typing import NamedTuple

import numpy as np

from ...seeding import Seed
from ..system import blas
from ..system.owner import Owner
from ..system.search_path import search_path

__all__ = ["Setup", "World", "seed_globals"]


class World(NamedTuple):
    """The surroundings of a process."""

    given: dict[str, str]  # more variables, which bound the threads of libraries; see system/blas.py
    path: list[str]
    argv: list[str]
    environ: dict[str, str]
    folder: str

    @classmethod
    def now(cls, given: dict[str, str]) -> World:
        """Return the surroundings of this process, as they are now."""
        return cls(given, search_path(), list(sys.argv), blas.environment(), _folder())

    def enter(self) -> None:
        """Make them those of this process."""
        sys.path[:] = self.path
        sys.argv[:] = self.argv
        environ = {**self.environ, **self.given}
        if environ != os.environ:
            os.environ.clear()
            os.environ.update(environ)
        blas.give(self.given)
        with contextlib.suppress(OSError):
            os.chdir(self.folder)


class Setup(NamedTuple):
    """What a worker is to take on, the same for all of a pool. It comes first, with what makes the Sender."""

    consumer: Owner
    script: tuple[dict[str, bytes], str | None]  # as script.install() takes it
    authkey: bytes  # of multiprocessing, which proxies of a manager need
    world: World
    tells_items: bool  # whether it writes down which item of a stream it is making


def seed_globals(seed: Seed) -> None:
    """Seed the generators of this process that streams use which know no other."""
    words = seed.generator().integers(2**32, size=4, dtype=np.uint32)
    np.random.seed(words)  # noqa: NPY002  # its global state is what this is about
    random.seed(words.tobytes())
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int.from_bytes(words[:2].tobytes(), sys.byteorder))


def _folder() -> str:
    """Return the working directory; the root if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return os.sep
