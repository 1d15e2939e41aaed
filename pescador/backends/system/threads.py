"""Threads, where the machine may have no more of them to give."""

from __future__ import annotations

import _thread
import threading

from ...exceptions import PescadorError

__all__ = ["start_thread"]

BEGIN_SECONDS = 5.0


def start_thread(thread: threading.Thread) -> None:
    """Start a thread; raise PescadorError if there is none.

    Where there is no memory for the stack of a new thread, :meth:`threading.Thread.start` waits for ever. So
    a thread that does nothing is started first.
    """
    begun = threading.Event()
    try:
        _thread.start_new_thread(begun.set, ())
        if not begun.wait(BEGIN_SECONDS):
            raise RuntimeError("a thread did not begin")
        thread.start()
    except RuntimeError as error:
        remedy = "Are there processes ('ulimit -u') and memory ('ulimit -v') left?"
        raise PescadorError(f"a worker needs a thread: {error}. {remedy}") from error
