"""Delivered arrays in JAX, which needs no adaptor."""

import gc
import sys
import textwrap
import warnings

import numpy as np
import pytest

from pescador import ParallelStreamer, Streamer

from .conftest import memory, needs, run

needs("jax")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import jax


def batches(n, size):
    for i in range(n):
        x = np.full((size, 16), i, np.float32)
        yield {"x": x, "i": np.full(size, i), "odd": np.full(67, i % 100, np.int8)}


def is_shared(array, numpy_array):
    return array.unsafe_buffer_pointer() == numpy_array.ctypes.data


@pytest.mark.parametrize("backend", ["shm", "zmq"])
@pytest.mark.parametrize(
    "size", [60, 1000]
)  # items of 4 and of 72 kB; the arrays of smaller ones lie anywhere
def test_delivered_arrays_are_not_copied_to_the_device_and_stay_as_they_are(backend, size):
    kept = []
    with ParallelStreamer(Streamer(batches, 600, size), backend) as stream:
        for (
            item
        ) in stream:  # all are kept, so that soon no room is left in a ring and they get memory of their own
            arrays = {key: jax.device_put(item[key]) for key in ("x", "odd")}
            assert all(is_shared(array, item[key]) for key, array in arrays.items())
            kept.append(arrays)
    del item, arrays
    gc.collect()
    assert [float(arrays["x"].min()) for arrays in kept] == list(range(600))
    assert [float(arrays["x"].max()) for arrays in kept] == list(range(600))


def test_int64_stays_if_jax_is_told_to(backend):
    stream = Streamer(batches, 1, 100)
    if backend is not None:
        stream = ParallelStreamer(stream, backend)
    (item,) = stream
    assert jax.device_put(item["i"]).dtype == np.int32
    with jax.enable_x64(True):
        array = jax.device_put(item["i"])
    assert array.dtype == np.int64
    assert backend is None or is_shared(array, item["i"])  # an array that NumPy made lies anywhere


def test_training_is_as_in_numpy_and_memory_is_flat(backend):
    step = jax.jit(lambda total, batch: total + batch["x"].max())
    stream = Streamer(batches, 2000, 1000)
    total, before = 0.0, None
    for number, item in enumerate(stream if backend is None else ParallelStreamer(stream, backend)):
        total = step(total, jax.device_put(item))
        if number == 300:
            before = memory()
    assert float(total) == sum(range(2000))
    assert memory() - before < 16 << 20  # bytes; all batches have 144 MB


def test_a_script_that_keeps_arrays_ends_silently():
    script = """
        import jax
        from tests.adaptors.test_jax import *
        stream = iter(ParallelStreamer(Streamer(batches, 600, 1000)))
        kept = [jax.device_put(next(stream)) for _ in range(100)]
        print(float(kept[7]["x"][0, 0]))
    """
    done = run(sys.executable, "-c", textwrap.dedent(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "7.0\n", "")
