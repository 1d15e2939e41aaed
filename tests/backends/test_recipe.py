"""Large arrays of a recipe are there once, however many workers use them."""

import os

import numpy as np
import psutil
import pytest

from pescador import ParallelStreamer, RoundRobinMux, Streamer
from tests.kinds import process_backends

N_WORKERS = 8


def totals(array):
    while True:
        yield float(array[:: 4096 // 8].sum())  # reads each page


def memory(array, backend, n_workers):
    """Return bytes of all processes while workers use an array; what they share is counted once."""
    mux = RoundRobinMux([Streamer(totals, array)] * N_WORKERS)
    with ParallelStreamer(mux, backend, n_workers) as stream:
        items = iter(stream)
        assert len({next(items) for _ in range(10 * N_WORKERS)}) == 1
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs /proc")
@process_backends
def test_eight_workers_have_one_copy_of_an_array(backend):
    large, small = np.ones(1 << 24), np.ones(1000)
    growth = [memory(array, backend, N_WORKERS) - memory(array, backend, 1) for array in (large, small)]
    assert growth[0] - growth[1] < 0.1 * large.nbytes
