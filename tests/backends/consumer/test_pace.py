"""When a consumer counts as one that starves."""

import os
import signal
import time

import pytest

from pescador import ParallelStreamer, RoundRobinMux, ShuffledMux, Streamer, WorkerError
from pescador.backends.consumer.pace import STARVING, Pace

from ...kinds import process_backends


def starves(works, waits, times=100):
    """Return whether one does that works and waits in turn, for so many seconds each."""
    pace, now = Pace(), time.perf_counter()
    for _ in range(times):
        now += works
        pace.add_wait(now, now + waits)
        now += waits
    return pace.is_starving


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 1.0])
def test_one_that_waits_nearly_all_of_the_time_starves(seconds):
    assert starves(seconds, 2 * STARVING * seconds)
    assert not starves(seconds, 0.5 * STARVING * seconds)
    assert not starves(seconds, 0.0)


def test_none_starves_at_first():
    pace = Pace()
    assert not pace.is_starving
    assert not starves(0.0, 1e-3, times=10)
    assert starves(0.0, 1e-3)


def test_an_iteration_begins_with_what_it_knows_nothing_of():
    pace = Pace()
    now = time.perf_counter()
    pace.add_wait(now, now + 10)
    assert pace.is_starving
    pace.begin()
    assert not pace.is_starving


def test_what_other_threads_wait_at_the_same_time_does_no_harm():
    pace, now = Pace(), time.perf_counter()
    for _ in range(100):
        now += 1e-3
        pace.add_wait(now, now + 2e-3)
        pace.add_wait(now, now + 1e-3)
        pace.add_wait(now + 5e-4, now + 1e-3)
    assert pace._works >= 0


def computed(number, n_items):
    for k in range(n_items):
        end = time.perf_counter() + 3e-4
        while time.perf_counter() < end:
            pass
        yield number, k


@pytest.mark.parametrize("prefetch", [None, 1])
@pytest.mark.parametrize("n_workers", [1, 2])
@process_backends
def test_one_that_starves_gets_the_same_items(backend, n_workers, prefetch, monkeypatch):
    """At each opening: the first, the second, and after a death."""
    starved = []
    monkeypatch.setattr(Pace, "is_starving", property(lambda pace: starved.append(True) or True))
    streams = [Streamer(computed, number, 20 + number) for number in range(4)]
    mux = ShuffledMux([RoundRobinMux(streams[:2]), *streams[2:]], random_state=0)
    expected = list(mux(max_iter=200))
    with ParallelStreamer(mux, backend, n_workers, prefetch=prefetch) as stream:
        assert list(stream(max_iter=200)) == expected
        assert list(stream(max_iter=200)) == expected
        os.kill(stream.stats()["workers"][0]["pid"], signal.SIGKILL)
        items, due = [], expected
        try:
            items += stream(max_iter=200)
        except WorkerError:  # the death was not noticed before
            due = expected[: len(items)]
        assert items == due
        assert list(stream(max_iter=200)) == expected
    assert starved
