"""stats() tells who is the bottleneck."""

import pytest

from pescador import RNG, ParallelStreamer, RoundRobinMux, Streamer


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
    if bottleneck == "producer":
        assert consumer > workers
    else:
        assert workers > consumer
    assert after["items"] == 120
    assert sum(worker["items"] for worker in after["workers"]) == 120
    assert len({worker["pid"] for worker in after["workers"]}) == n_workers
