"""Arrays that are born in shared memory: what is copied of them, and that nobody else sees them change."""

import os

import numpy as np
import pytest

import pescador
from pescador import (
    ChainMux,
    ParallelStreamer,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    buffer_stream,
)
from pescador.testing import assert_same

from .streams import samples

LARGE = 50_000  # values of an array that no backend sends inside a message


batches = Streamer(buffer_stream, Streamer(samples, 64, 5000), 8)


def test_batches_are_built_in_shared_memory():
    with ParallelStreamer(batches, "shm") as stream:
        assert_same(list(stream), list(batches))
        stats = stream.stats()
    assert stats["bytes"] >= 64 * 5000 * 4
    assert stats["copied"] < stats["bytes"] / 10


@pytest.mark.parametrize(
    "stream",
    [
        StochasticMux([batches] * 3, 2, rate=3, mode="exhaustive"),
        StochasticMux([batches] * 3, 2, rate=3, weights=[1, 2, 3]),
        ShuffledMux([batches] * 3),
        RoundRobinMux([batches] * 3),
        ChainMux([batches] * 3),
        ShuffledMux([RoundRobinMux([batches] * 2), batches]),
    ],
    ids=repr,
)
def test_no_mux_has_batches_copied(stream):
    with ParallelStreamer(stream, "shm") as parallel:
        n = sum(1 for _ in parallel(20))
        stats = parallel.stats()
    assert stats["items"] == n
    assert stats["bytes"] >= n * 8 * 5000 * 4
    assert stats["copied"] < 8 * 5000 * 4


def reused(n):
    buffer = pescador.empty(LARGE)
    for i in range(n):
        buffer[:] = i
        yield {"x": buffer}


def kept(n):
    """Keep what was yielded, and write to it later."""
    earlier = None
    for i in range(n):
        array = pescador.empty(LARGE)
        array[:] = i
        yield {"x": array}
        if earlier is not None:
            earlier[:] = -1
        earlier = array


def twice(n):
    for i in range(n):
        array = pescador.empty((100, LARGE // 100), order="F")
        array[:] = i
        yield {"x": array, "y": array, "z": array[10:]}


def sliced(n):
    for i in range(n):
        array = pescador.empty(LARGE)
        array[:] = i
        yield {"x": array[1:], "i": np.int64(i)}


def not_in_a_dict(n):
    for i in range(n):
        array = pescador.empty(LARGE)
        array[:] = i
        yield array


@pytest.mark.parametrize("source", [reused, kept, twice, sliced, not_in_a_dict])
def test_whatever_a_generator_does_with_such_arrays_items_are_distinct(source):
    with ParallelStreamer(Streamer(source, 12), "shm", prefetch=3) as stream:
        items = list(stream)
    for i, item in enumerate(items):
        for array in item.values() if isinstance(item, dict) else [item]:
            assert (array == i).all()
        if isinstance(item, dict):
            arrays = [array for array in item.values() if array.ndim]
            for array in arrays:
                array[:] = -2
                assert sum((other == -2).all() for other in arrays) == 1
                array[:] = i
    assert len(items) == 12


def test_an_array_that_was_not_yielded_is_given_back():
    def filled(i):
        array = pescador.empty(LARGE)
        array[:] = i
        return {"x": array}

    def wasteful(n):
        for i in range(n):
            filled(-1)
            yield filled(i)

    with ParallelStreamer(Streamer(wasteful, 100), "shm", ring_bytes=8 * 8 * LARGE) as stream:
        for i, item in enumerate(stream):
            assert (item["x"] == i).all()
            del item
        assert stream.stats()["copied"] < stream.stats()["bytes"] / 2


def test_an_array_of_its_own_may_come_with_many_small_ones():
    def mixed(n):
        for i in range(n):
            item = {"x": pescador.empty(LARGE)} | {str(k): np.full(1500, float(i + k)) for k in range(8)}
            item["x"][:] = i
            yield item

    with ParallelStreamer(Streamer(mixed, 20), "shm") as stream:
        assert_same(list(stream), list(Streamer(mixed, 20)))


@pytest.mark.parametrize("backend", ["shm", "zmq"])
def test_large_items_get_no_larger_window_because_they_are_made_in_place(backend):
    def large(n):
        for _ in range(n):
            yield {"x": pescador.empty(1 << 20, np.uint8)}

    with ParallelStreamer(Streamer(large, 40), backend) as stream:
        items = iter(stream)
        next(items)
        assert items._place.active.stream_.window <= 16
        items.close()


def test_a_process_that_a_generator_forks_does_not_write_into_its_items():
    def forking(n):
        for i in range(n):
            pid = os.fork()
            array = pescador.empty(LARGE)
            if not pid:
                array[:] = -1
                os._exit(0)
            os.waitpid(pid, 0)
            array[:] = i
            yield {"x": array}

    with ParallelStreamer(Streamer(forking, 3), "shm") as stream:
        for i, item in enumerate(stream):
            assert (item["x"] == i).all()
