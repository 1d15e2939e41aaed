"""Waiting for a worker, in several threads."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pescador import ParallelStreamer, Streamer
from pescador.backends.consumer.worker_handle import WorkerHandle

from ...kinds import PATIENCE, every_background


class Late(threading.Condition):
    """Whoever waits is notified in the moment in which his time is over, and not told of it."""

    def wait(self, timeout=None):
        super().wait(timeout)
        return False


@pytest.fixture
def handles(monkeypatch):
    """Return a list of all handles that are made, whose condition is a late one."""
    made = []
    init = WorkerHandle.__init__

    def make(handle, *arguments):
        init(handle, *arguments)
        handle._changed = Late()
        made.append(handle)

    monkeypatch.setattr(WorkerHandle, "__init__", make)
    return made


def gated(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    yield path


@every_background
def test_a_thread_that_is_told_too_late_looks_for_itself(backend, handles, tmp_path):
    """Two threads wait for one worker, of which with processes one reads for both."""
    gate = tmp_path / "gate"
    with (
        ParallelStreamer(Streamer(gated, str(gate)), backend) as stream,
        ThreadPoolExecutor(2) as threads,
    ):
        found = [threads.submit(next, iter(stream)) for _ in range(2)]
        give_up = time.monotonic() + PATIENCE
        n_waiting = 2 if backend == "thread" else 1
        while not (handles and handles[0]._n_waiting == n_waiting) and time.monotonic() < give_up:
            time.sleep(0.001)
        gate.touch()
        try:
            assert [future.result(PATIENCE) for future in found] == [str(gate)] * 2
        finally:
            stream.close()
