"""Arrays of some size begin at multiples of 64 bytes, on whichever way they came: JAX copies others again."""

import numpy as np
import pytest

import pescador
from pescador import ParallelStreamer, Streamer
from pescador.backends.protocol.codec import ALIGNED_BYTES
from pescador.backends.system.shared_memory import ALIGNMENT

from ..kinds import process_backends

RING_BYTES = 1 << 20  # so an array of 2 MiB has a segment of its own, and kept ones are soon private copies

SIZES = [ALIGNED_BYTES, 5000, 1 << 14, 20_001, 100_000, 140_000, 250_000, (1 << 20) + 8, 1 << 21]


def plain(n_bytes):
    return {"label": np.float32(1), "x": np.ones(n_bytes, np.uint8), "y": np.ones(n_bytes // 8)}


def made_in_place(n_bytes):
    x = pescador.empty(n_bytes, np.uint8)
    x.fill(1)
    return {"x": x, "y": np.ones(1000), "label": np.float32(1)}  # of which only x is a record


def pickled(n_bytes):
    return "label", [np.ones(n_bytes, np.uint8), {"y": np.ones((n_bytes // 16, 2), order="F")}]


def items(make, n_bytes):
    for _ in range(12):
        yield make(n_bytes)


def arrays_of(item):
    if isinstance(item, np.ndarray):
        return [item]
    members = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else ()
    return [array for member in members for array in arrays_of(member)]


@process_backends
@pytest.mark.parametrize("make", [plain, made_in_place, pickled])
def test_arrays_are_aligned_whether_they_are_kept_or_not(backend, make):
    options = {"ring_bytes": RING_BYTES} if backend == "shm" else {}
    mux = pescador.ChainMux([Streamer(items, make, size) for size in SIZES])
    kept = []
    with ParallelStreamer(mux, backend, **options) as stream:
        for i, item in enumerate(stream):
            arrays = arrays_of(item)
            assert len(arrays) == 2
            for array in arrays:
                assert array.ctypes.data % ALIGNMENT == 0, (array.nbytes, i)
                assert (array == 1).all()
            if i % 3:
                kept.append(item)
    assert i + 1 == 12 * len(SIZES)
