"""Large arrays of recipes: put into the object store once, and shared by all workers of a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from ...exceptions import PescadorError
from ..consumer.segments import Segment

__all__ = ["RaySegment"]


class RaySegment(Segment):
    """Arrays of recipes in the object store. There they are read-only."""

    handles: tuple[Any, ...] = ()

    def fill(self) -> None:
        memory = np.empty(self.n_bytes, np.uint8)
        for offset, contents in self._pending:
            memory[offset : offset + contents.nbytes] = contents
        self._pending.clear()
        try:
            reference = ray.put(memory)
            self._memory = ray.get(reference)
        except Exception as error:
            raise PescadorError(
                f"{self.n_bytes:,} bytes for a recipe cannot be put into Ray's object store: {error}. Give "
                "it "
                "more memory (object_store_memory), or have the generator load large data itself"
            ) from error
        self.handles = (reference,)
        self.command = ("segment", self.number, self.n_bytes)

    def __del__(self) -> None:
        if self.handles:
            self._given_up.append(self.number)
