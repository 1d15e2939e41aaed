"""Ctrl-C at a moment when it would leave something half done, such as a process that nobody knows of."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["interrupts_held"]


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C take effect at the end of the block, so that nothing it starts or ends is left half done.

    It replaces the handler. To block the signal instead would not do: the system would give it to a thread
    of some library, and Python would still interrupt the main thread. An interpreter that starts in the
    block does not inherit the handler.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield  # nothing can be interrupted: Ctrl-C is ignored, or interrupts another thread than this one
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])
