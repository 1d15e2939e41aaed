"""Laws 1, 2, 4, 6 and 7 on every backend: items arrive as they are, in order, through bounded memory.

Law 2 for more than one worker is in test_laws_workers.py. PESCADOR_LAW_EXAMPLES sets the number of examples.
"""

import itertools
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pescador
from pescador import ChainMux, ParallelStreamer, Streamer
from pescador.backends.system import shared_memory

from ..kinds import every_backend, every_background, every_kind, process_backends, segments_of, worker_pid
from .items import assert_all_writeable_and_apart, assert_same, make_all, streams
from .test_laws_serial import leaves, muxes, trees

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))

# Law 1: transparency


@pytest.fixture(params=["serial", "thread", "shm", "zmq", "shm ring"])
def pool(request):
    """Give a function that runs streams on one pool, which is opened once."""
    backend, _, ring = request.param.partition(" ")
    options = {"ring_bytes": 1 << 18} if ring else {}
    with ParallelStreamer([], backend, **options) as first:

        def parallel(stream, prefetch=None):
            other = ParallelStreamer(stream, backend, prefetch=prefetch, **options)
            other._pool = first._pool
            return other

        parallel.copies = backend in ("shm", "zmq")
        yield parallel


def test_items_arrive_as_they_are(pool):
    @settings(max_examples=EXAMPLES or 150)
    @given(streams)
    def arrive(recipes):
        delivered = list(pool(Streamer(make_all, recipes)))
        assert_same(delivered, list(make_all(recipes)))
        if pool.copies:
            assert_all_writeable_and_apart(delivered)

    arrive()


def test_memory_maps_arrive_equal(pool, tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(30_000.0))
    sent = [{"x": np.load(path, mmap_mode="r")[10:20]}, {"x": np.load(path, mmap_mode="r")}]
    for got, item in zip(list(pool(Streamer(sent))), sent, strict=True):
        assert type(got["x"]) is np.memmap
        np.testing.assert_array_equal(got["x"], item["x"])


def test_items_that_all_look_different_arrive(pool):
    sent = [{"x": np.zeros(i % 1500), f"k{i}": np.full(2, i)} for i in range(1500)]
    assert_same(list(pool(Streamer(sent))), sent)


def test_dtypes_made_for_each_item_are_not_mistaken_for_each_other(pool):
    units = ["s", "D", "ms", "h", "us"]
    sent = [
        {
            "a": np.datetime64(i, units[i % 5]),
            "b": np.array([i], f"M8[{units[i % 3]}]"),
            "c": np.zeros(1, "f4,i4"),
        }
        for i in range(2000)
    ]
    assert_same(list(pool(Streamer(sent))), sent)


def lost_by_pickle():
    """Arrays that NumPy's own pickle does not keep as they are. They are made in the worker."""
    dates = np.arange(3).astype(">M8[s]")
    yield {"x": dates, "y": np.zeros(2, [("t", ">m8[D]")])}
    yield dates
    yield [dates.reshape(3, 1), np.zeros(6, ">i4")[::2], np.zeros((0, 3), ">M8[D]").T, np.zeros(2, "S0")]


def test_arrays_that_pickle_changes_arrive_as_they_are(pool):
    assert_same(list(pool(Streamer(lost_by_pickle))), list(lost_by_pickle()))


def test_a_dtype_with_thousands_of_fields_arrives(pool):
    dtype = np.dtype([(f"a field with a long name, number {i}", "f4") for i in range(3000)])
    sent = [{"x": np.zeros(2, dtype)}] * 2
    assert_same(list(pool(Streamer(sent))), sent)


# Laws 2 and 6: parallel equals sequential, one seed fixes everything

rooted = st.builds(
    lambda tree: ChainMux([tree], random_state=0), st.one_of(trees, muxes(muxes(leaves) | leaves))
)


def test_parallel_equals_sequential(pool):
    @settings(max_examples=EXAMPLES or 40)
    @given(rooted, st.sampled_from([None, 1, 2, 3, 1000]), st.sampled_from([None, 0, 1, 2, 16, 80]))
    def same(tree, prefetch, max_iter):
        n = 80 if max_iter is None else max_iter
        assert list(pool(tree, prefetch).iterate(n)) == list(tree.iterate(n))
        assert list(itertools.islice(pool(tree, prefetch), n)) == list(itertools.islice(tree, n))
        assert list(pool(tree, prefetch).cycle(n)) == list(tree.cycle(n))

    same()


def noisy(n, rng):
    for _ in range(n):
        yield rng.random(3).tolist()


@every_kind
def test_one_seed_gives_the_same_everywhere(kind):
    tree = pescador.StochasticMux(
        [pescador.ShuffledMux([Streamer(noisy, 5, pescador.RNG)] * 3), Streamer(noisy, 9, rng=pescador.RNG)],
        2,
        3,
        random_state=5,
    )
    expected = list(tree(200))
    for prefetch in (1, None):
        with ParallelStreamer(tree, prefetch=prefetch, **kind) as stream:
            assert list(stream(200)) == expected
            assert list(stream(200)) == expected
            assert list(stream.cycle(200)) == list(tree.cycle(200))


# Law 4: bounded


def records(n, size):
    for i in range(n):
        yield {"x": np.full(size, i, float)}


def rss_of_shared_memory():
    """Return bytes of shared memory that this process has mapped."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssShmem"))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_the_ring_does_not_grow_with_what_the_consumer_keeps():
    size = 1 << 13  # items of 64 KiB
    before = rss_of_shared_memory()
    with ParallelStreamer(Streamer(records, 200, size), ring_bytes=4 * 8 * size, prefetch=1) as stream:
        kept = []
        for item in stream:
            kept.append(item)
            # The ring, and records of their own that it had no room for while both sides waited.
            assert rss_of_shared_memory() - before <= 8 * 8 * size
    assert [item["x"][0] for item in kept] == list(range(200))
    assert all((item["x"] == i).all() for i, item in enumerate(kept))


def test_ten_thousand_items_that_are_kept_come_through_a_ring_of_four():
    size = 2100  # items of 16,800 bytes, just too large for a message
    with ParallelStreamer(Streamer(records, 10_000, size), ring_bytes=4 * (8 * size + 64)) as stream:
        kept = list(stream)
    assert len(kept) == 10_000
    assert all((item["x"] == i).all() for i, item in enumerate(kept))


@process_backends
@pytest.mark.parametrize("n_kept", [0, 1, 3, 5, 1000])
@pytest.mark.parametrize("prefetch", [1, None])
def test_holding_any_number_of_records_never_deadlocks_nor_overwrites(backend, n_kept, prefetch):
    size = 5000
    options = {"ring_bytes": 4 * (8 * size + 64)} if backend == "shm" else {}
    kept = []
    with ParallelStreamer(Streamer(records, 60, size), backend, prefetch=prefetch, **options) as stream:
        for i, item in enumerate(stream):
            kept.append((i, item["x"][1:]))
            del kept[: len(kept) - n_kept]
            assert all((array == number).all() for number, array in kept)
    assert all((array == number).all() for number, array in kept)  # also when the worker is gone


def test_records_larger_than_the_ring_arrive():
    with ParallelStreamer(Streamer(records, 5, 1 << 16), ring_bytes=1 << 16) as stream:
        assert [item["x"].sum() for item in stream] == [i << 16 for i in range(5)]


def test_rings_of_changing_sizes_serve_one_stream():
    def growing():
        for i in range(60):
            yield {"x": np.full(1 << (i % 20), i, np.uint8 if i % 2 else float)}

    with ParallelStreamer(Streamer(growing)) as stream:
        assert_same(list(stream), list(Streamer(growing)))


# Law 7: lazy


class Counted:
    """A source that writes a byte for each draw to a pipe, and waits where it is told to."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        with open(self.path, "wb", buffering=0) as file:
            for i in itertools.count():
                file.write(b".")
                yield i


@pytest.fixture
def draws(tmp_path):
    """Give a source, and a function that returns all its draws when it has been closed."""
    path = str(tmp_path / "draws")
    os.mkfifo(path)
    counts = []
    reader = threading.Thread(target=lambda: counts.append(len(Path(path).read_bytes())))
    reader.start()

    def total():
        reader.join(30)
        return counts[0]

    return Streamer(Counted(path)), total


@every_backend
def test_iterate_draws_exactly_what_was_asked_for(backend, draws):
    source, total = draws
    with ParallelStreamer(source, backend) as stream:
        assert list(stream.iterate(3)) == [0, 1, 2]
        assert total() == 3


@every_background
@pytest.mark.parametrize("prefetch", [1, 4])
def test_workers_run_ahead_by_at_most_prefetch(backend, prefetch, draws):
    source, total = draws
    with ParallelStreamer(source, backend, prefetch=prefetch) as stream:
        taken = [item for item, _ in zip(stream, range(10), strict=False)]
        assert taken == list(range(10))
        assert 10 <= total() <= 11 + prefetch


@every_kind
def test_nothing_starts_before_the_first_item(kind, tmp_path):
    def opens(path):
        open(path, "w").close()
        yield 1

    path = tmp_path / "opened"
    with ParallelStreamer(Streamer(opens, str(path)), **kind) as stream:
        items = stream.iterate()
        assert not path.exists()
        assert stream.stats()["workers"] == []
        assert next(items) == 1
        assert path.exists()
        items.close()


@process_backends
def test_an_item_reaches_a_waiting_consumer_while_its_generator_is_blocked(backend):
    """Whenever that is blocked, and however early the consumer waits."""

    def paced(path):
        for i in range(20):
            if i % 3 == 2:
                with open(path) as file:
                    assert file.read() == str(i)
            yield i

    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"pescador-test-{os.getpid()}-{backend}")
    os.mkfifo(path)
    try:
        with ParallelStreamer(Streamer(paced, path), backend) as stream:
            for i, item in enumerate(stream):
                assert item == i
                if (i + 1) % 3 == 2 and i + 1 < 20:  # the generator goes on only after this
                    with open(path, "w") as file:
                        file.write(str(i + 1))
    finally:
        os.unlink(path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_shared_memory_has_no_name_while_it_is_used():
    with ParallelStreamer(Streamer(records, 5, 1 << 16)) as stream:
        for _ in stream:
            segments = segments_of([os.getpid(), worker_pid(stream)])
            names = {name for _, name in segments}
            if shared_memory.kind() == "memfd":
                assert names == {"/memfd:pescador (deleted)"}
            else:
                assert names
                assert all(name.endswith(" (deleted)") for name in names)
