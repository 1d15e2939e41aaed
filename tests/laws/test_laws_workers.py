"""Law 2, parallel equals sequential: random trees of muxes, item by item, with any number of workers.

PESCADOR_LAW_EXAMPLES sets the number of trees for each backend and number of workers.
"""

import os
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pescador import (
    RNG,
    ChainMux,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
)
from pescador.backends.consumer import process_handle
from pescador.backends.worker.loop import SLICE_SECONDS

from .test_laws_serial import leaves, muxes, trees

N = 80  # items looked at; many trees are endless

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))


def sized(n, size, rng):
    """Items of all sizes: in a message, in a record of the ring, in a segment of their own."""
    for i in range(n):
        yield {"i": i, "x": rng.random(size)} if size < 10_000 else {"x": rng.random(size)}


def raising(n):
    yield from range(n)
    raise ZeroDivisionError(n)


def delayed(n, rng):
    """Items, some of which take long, so that those of other streams are ready first."""
    for i in range(n):
        time.sleep(rng.choice([0, 0, 0, 1e-3]))
        yield i


large_leaves = st.builds(
    lambda n, size: Streamer(sized, n, size, RNG), st.integers(0, 20), st.sampled_from([1, 5000, 40_000])
)
raising_leaves = st.builds(lambda n: Streamer(raising, n), st.integers(0, 10))
delayed_leaves = st.builds(lambda n: Streamer(delayed, n, RNG), st.integers(0, 10))
rooted = st.builds(
    lambda tree: ChainMux([tree], random_state=0),
    st.one_of(
        trees,
        muxes(leaves | large_leaves),
        muxes(muxes(leaves | large_leaves) | leaves),
        muxes(leaves | raising_leaves | large_leaves),
        muxes(leaves | delayed_leaves | raising_leaves),
    ),
)


def run(stream):
    """Return the first items of a stream, and its error, if it raises."""
    items = []
    try:
        for item in stream(N):
            items.append(item)
    except (ZeroDivisionError, PescadorError) as error:
        items.append(repr(error))
    return items


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(one, other)


@contextmanager
def workers(backend, n, **options):
    """Give a function that runs trees on one pool, which is opened only once, for all of them."""
    with ExitStack() as stack:
        first = stack.enter_context(ParallelStreamer(RoundRobinMux([[0]]), backend, n, **options))

        def parallel(tree, prefetch, open_ahead):
            stream = ParallelStreamer(tree, backend, n, prefetch=prefetch, open_ahead=open_ahead, **options)
            stream._pool = first._pool
            return stream

        yield parallel


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("backend", "options"), [("serial", {}), ("thread", {}), ("shm", {"ring_bytes": 1 << 20}), ("zmq", {})]
)
def test_trees_give_the_same_items_with_any_number_of_workers(backend, options, n):
    with workers(backend, n, **options) as parallel:

        @settings(max_examples=EXAMPLES or (60 if backend in ("serial", "thread") else 25))
        @given(rooted, st.sampled_from([None, 1, 2, 7, 1000]), st.sampled_from([None, 0, 1]))
        def same(tree, prefetch, open_ahead):
            assert_same(run(parallel(tree, prefetch, open_ahead)), run(tree))

        same()


@pytest.mark.parametrize("backend", ["thread", "shm", "zmq"])
def test_a_blocked_stream_does_not_keep_those_of_other_workers_from_the_consumer(backend):
    mux = RoundRobinMux([Streamer(sized, 50, 5000, RNG), Streamer(sized, 50, 5000, RNG)], random_state=0)
    with ParallelStreamer(mux, backend, 2) as stream:
        assert_same(list(stream), list(mux))


def gate(n, opened):
    for i in range(n):
        if i == 1:
            opened.wait()
        yield i


def test_items_of_a_blocked_stream_are_waited_for_and_the_others_stay_bounded():
    opened = threading.Event()
    taken = []

    def endless():
        for i in range(10**6):
            taken.append(i)
            yield -1

    mux = RoundRobinMux([Streamer(gate, 3, opened), Streamer(endless)])
    with ParallelStreamer(mux, "thread", 2, prefetch=8) as stream:
        items = iter(stream)
        assert [next(items), next(items)] == [0, -1]
        threading.Timer(0.05, opened.set).start()  # nothing waits for this time but the stream itself
        assert [next(items), next(items)] == [1, -1]
        assert len(taken) <= 2 + 8
        items.close()


@pytest.mark.parametrize("backend", ["thread", "shm", "zmq"])
def test_one_ring_of_four_records_serves_many_streams(backend):
    options = {"ring_bytes": 4 * 40_064} if backend == "shm" else {}
    leaves = [Streamer(sized, 30, 5000, RNG) for _ in range(6)]
    mux = ShuffledMux(leaves, random_state=0)
    with ParallelStreamer(mux, backend, 2, **options) as stream:
        assert_same(list(stream(150)), list(mux(150)))


def test_a_stream_that_is_no_mux_has_one_worker():
    with pytest.raises(PescadorError, match=r"RoundRobinMux\(\[stream\] \* n\)"):
        ParallelStreamer(Streamer(raising, 3), n_workers=2)


@pytest.mark.parametrize("backend", ["serial", "thread", "shm"])
def test_at_most_one_more_stream_a_worker_is_open_than_are_active(backend, tmp_path):
    """Streams that are open, counted through files, for they may be in other processes."""

    def counting(folder, i):
        path = folder / str(i)
        path.touch()
        try:
            while True:
                yield len(list(folder.iterdir()))
        finally:
            path.unlink()

    streams = [Streamer(counting, tmp_path, i) for i in range(30)]
    mux = StochasticMux(streams, 3, 4, mode="exhaustive", random_state=0)
    for n, open_ahead in ((2, None), (3, 0)):
        ahead = n if open_ahead is None else open_ahead
        with ParallelStreamer(mux, backend, n, prefetch=3, open_ahead=open_ahead) as stream:
            assert max(stream) <= 3 + ahead


def in_turns(path, gate=None):
    """Items that take long enough for other streams to have their turn; the second waits for the gate."""
    for i in range(1000):
        started = time.perf_counter()
        while time.perf_counter() - started < 2 * SLICE_SECONDS:
            pass
        if gate and i == 1:
            Path(gate).read_bytes()
        with open(path, "ab") as file:
            file.write(b".")
        yield i


@pytest.mark.parametrize("backend", ["thread", "shm", "zmq"])
def test_what_a_worker_keeps_for_one_thread_does_not_wait_for_what_another_waits_for(
    backend, tmp_path, monkeypatch
):
    # The worker is woken up for the one thread before the other one waits.
    monkeypatch.setattr(process_handle, "WAKEUP_MILLISECONDS", 0)
    gate, count = tmp_path / "gate", tmp_path / "count"
    os.mkfifo(gate)
    with workers(backend, 1) as parallel:
        free = iter(parallel(ChainMux([Streamer(in_turns, str(count))]), 100, None))
        blocked = iter(parallel(ChainMux([Streamer(in_turns, str(tmp_path / "_"), str(gate))]), 100, None))
        assert next(free) == 0
        thread = threading.Thread(target=lambda: [next(blocked), next(blocked)])
        thread.start()
        with open(gate, "wb"):  # the generator is there now, so that of `free` does not run
            for i in range(1, count.stat().st_size):
                assert next(free) == i
        thread.join()
