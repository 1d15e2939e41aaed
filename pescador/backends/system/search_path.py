"""Where modules are found, as another process of this program needs it.

This module is imported together with pescador, for it remembers the folder where the interpreter started.
"""

from __future__ import annotations

import os
import sys

__all__ = ["START_FOLDER", "search_path"]

try:
    START_FOLDER = os.getcwd()
    """Where this interpreter started, as far as one can tell: relative entries count from there."""
except OSError:  # it was deleted
    START_FOLDER = ""


def search_path() -> list[str]:
    """Return ``sys.path`` for another process, which may work in another folder.

    As Python itself, it leaves out what is no string. Behind a relative entry comes what it meant in the
    folder where this interpreter started.
    """
    path: list[str] = []
    for entry in sys.path:
        if isinstance(entry, str):
            path.append(entry)
            if START_FOLDER and not os.path.isabs(entry):
                path.append(os.path.join(START_FOLDER, entry) if entry else START_FOLDER)
    return list(dict.fromkeys(path))
