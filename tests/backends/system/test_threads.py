"""Threads, where a machine has no more of them to give."""

import _thread
import threading

import pytest

from pescador import PescadorError
from pescador.backends.system import threads


def fail(*arguments):
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("start", "reason"),
    [(fail, "can't start new thread"), (lambda *arguments: 0, "a thread did not begin")],
    ids=["no processes", "no memory for its stack"],
)
def test_a_thread_that_cannot_start_is_an_error_with_a_remedy(start, reason, monkeypatch):
    monkeypatch.setattr(threads, "BEGIN_SECONDS", 0.05)
    monkeypatch.setattr(_thread, "start_new_thread", start)
    with pytest.raises(PescadorError, match=rf"needs a thread: {reason}.*ulimit -u"):
        threads.start_thread(threading.Thread())
