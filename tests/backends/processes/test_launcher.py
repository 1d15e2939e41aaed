"""Starting workers while memory runs out."""

import contextlib
import os

import psutil
import pytest

from pescador import ParallelStreamer, Streamer
from pescador.backends.processes import process
from pescador.backends.processes.launcher import START_METHODS

from ...kinds import process_backends


@contextlib.contextmanager
def no_memory_for(module, name):
    """Have a function fail for want of memory, and nothing come of it but that."""

    def fails(*_):
        raise MemoryError

    before = psutil.Process().children(recursive=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, fails)
        with pytest.raises(MemoryError):
            yield
    assert psutil.Process().children(recursive=True) == before


@process_backends
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_process_that_starts_while_memory_runs_out_is_ended(backend, start_method, own_forkserver):
    stream = ParallelStreamer(Streamer(range, 3), backend=backend, start_method=start_method)
    with no_memory_for(process, "watch"):
        list(stream)
    with stream:
        assert list(stream) == [0, 1, 2]


def test_an_interpreter_that_starts_while_memory_runs_out_is_ended(own_forkserver):
    """Popen reads whether its process runs, which takes memory when there is a process."""
    stream = ParallelStreamer(Streamer(range, 3))
    with no_memory_for(os, "read"):
        list(stream)
    with stream:
        assert list(stream) == [0, 1, 2]
