"""stats() tells who is the bottleneck."""

import pytest

from pescador import RNG, ParallelStreamer, RoundRobinMux, Streamer

BACKENDS = ["serial", "thread", "shm", "zmq"]


def work(n):
    return sum(i * i for i in range(n))


def worked(n_items, n, rng):
    for _ in range(n_items):
        yield work(n)


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("backend", ["shm", "zmq"])
@pytest.mark.parametrize("bottleneck", ["producer", "consumer"])
def test_the_side_that_works_more_waits_less(bottleneck, backend, n_workers):
    theirs, ours = (30_000, 10) if bottleneck == "producer" else (10, 30_000)
    mux = RoundRobinMux([Streamer(worked, 60, theirs, rng=RNG) for _ in range(2)], random_state=0)
    with ParallelStreamer(mux, backend, n_workers, prefetch=4) as stream:
        items = iter(stream)
        next(items)  # that a process starts is not its fault
        before = stream.stats()
        for _ in items:
            work(ours)
        after = stream.stats()
    consumer, workers = (after[key] - before[key] for key in ("consumer_wait", "worker_wait"))
    worker = workers / n_workers  # for one may wait because another is behind
    if bottleneck == "producer":
        assert consumer > worker
    else:
        assert worker > consumer
    assert after["items"] == 120
    assert sum(worker["items"] for worker in after["workers"]) == 120
    assert len({worker["pid"] for worker in after["workers"]}) == n_workers


def slow(n):
    for _ in range(n):
        work(100_000)
        yield 1


def fast(n):
    yield from [2] * n


def streams(stream):
    """Return the statistics of the open streams, by their name."""
    workers = stream.stats()["workers"]
    return {stats["name"]: stats for worker in workers for stats in worker["open_streams"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_stream_that_is_waited_for_is_named(backend):
    mux = RoundRobinMux([Streamer(slow, 100), Streamer(fast, 100)])
    with ParallelStreamer(mux, backend, 2, prefetch=4) as stream:
        items = iter(stream)
        next(items), next(items)  # that a process starts is not the fault of its stream
        started = streams(stream)
        for _ in range(58):
            next(items)
        found = streams(stream)
        assert {name: stats["items"] for name, stats in found.items()} == {
            "Streamer(slow, 100)": 30,
            "Streamer(fast, 100)": 30,
        }
        if backend != "serial":
            waited = {name: found[name]["consumer_wait"] - started[name]["consumer_wait"] for name in found}
            assert waited["Streamer(slow, 100)"] > waited["Streamer(fast, 100)"]
        items.close()
        assert all(worker["open_streams"] == [] for worker in stream.stats()["workers"])
