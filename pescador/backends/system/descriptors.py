"""File descriptors that are sent from one process to another."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ...exceptions import PescadorError

__all__ = ["close_all", "copies_of"]


def close_all(descriptors: Sequence[int]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def copies_of(descriptors: Sequence[int]) -> list[int]:
    """Return copies of file descriptors, which are to be closed."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError as error:
        close_all(copies)
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise PescadorError(
            f"a file descriptor cannot be sent: {error.strerror}. Raise the limit ('ulimit -n')"
        ) from error
    return copies
