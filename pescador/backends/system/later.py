"""psutil, imported when something of it is first used.

That takes longer than all else which a worker needs beside NumPy, and most workers never look for processes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["psutil"]


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


if TYPE_CHECKING:
    import psutil
else:
    psutil = _Later("psutil")
