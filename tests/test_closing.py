"""Generators that ignore their end: ``except:`` around a ``yield``."""

import gc
import sys
import threading
import warnings

import pytest

from pescador import ChainMux, ParallelStreamer, RoundRobinMux, ShuffledMux, StochasticMux, Streamer

from .kinds import every_backend


def ignores(k):
    while True:
        try:
            yield k
        except:  # noqa: E722 -- this is about it
            continue


def delegates(k):
    yield from ignores(k)


def delegates_and_ignores(k):
    while True:
        try:
            yield from ignores(k)
        except BaseException:
            yield k


class Iterable:
    def __init__(self, k):
        self.k = k

    def __iter__(self):
        return ignores(self.k)


SOURCES = {
    "function": lambda k: Streamer(ignores, k),
    "one that delegates": lambda k: Streamer(delegates, k),
    "one that ignores it, too": lambda k: Streamer(delegates_and_ignores, k),
    "iterable": lambda k: Streamer(Iterable(k)),
    "Streamer of a Streamer": lambda k: Streamer(Streamer(ignores, k), max_iter=10**6),
}
every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)

ENDINGS = {
    "mux that replaces": lambda make: list(StochasticMux([make(k) for k in range(3)], 2, rate=2)(30)),
    "ShuffledMux": lambda make: list(ShuffledMux([make(k) for k in range(3)])(30)),
    "limit": lambda make: list(make(0).iterate(30)),
    "cycle": lambda make: list(Streamer(make(0), max_iter=7).cycle(30)),
    "chain": lambda make: list(ChainMux([Streamer(make(0), max_iter=15)] * 2)),
    "with": lambda make: with_block(make(0)),
    "closed": lambda make: closed(make(0)),
    "collected": lambda make: collected(make(0)),
}


def with_block(stream):
    with stream as active:
        return [next(active.stream_) for _ in range(30)]


def closed(stream):
    items = stream.iterate()
    found = [next(items) for _ in range(30)]
    items.close()
    return found


def collected(stream):
    items = stream.iterate()
    return [next(items) for _ in range(30)]


@pytest.fixture
def unraisable(monkeypatch):
    """What Python would have printed."""
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(str(unraisable.exc_value)))
    return seen


@every_source
@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_it_is_warned_of_once_and_the_stream_counts_as_closed(source, end, unraisable):
    with pytest.warns(RuntimeWarning, match="ignores its end") as caught:
        found = [end(source), end(source)]
    assert [len(items) for items in found] == [30, 30]
    gc.collect()
    names = {str(warning.message).split()[2] for warning in caught}
    assert "ignores" in names
    assert names <= {"ignores", "delegates_and_ignores"}
    assert len(caught) == len(names)
    assert {warning.filename for warning in caught} == {__file__}
    assert unraisable == []


@every_backend
@pytest.mark.parametrize("n_workers", [1, 2])
def test_it_is_replaced_in_workers(backend, n_workers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mux = StochasticMux([Streamer(ignores, k) for k in range(3)], 2, rate=2, random_state=0)
        with ParallelStreamer(mux, backend, n_workers) as stream:
            assert list(stream(30)) == list(mux(30))


class Iterator:
    """As a generator of compiled code is: it has a close(), and is no generator of Python."""

    def __init__(self, k):
        self.items = ignores(k)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def close(self):
        self.items.close()


def test_an_iterator_that_closes_one_that_ignores_it_is_named(unraisable):
    with pytest.warns(RuntimeWarning, match="the generator Iterator ignores its end") as caught:
        assert list(StochasticMux([Streamer(Iterator, 5)], 2, rate=2)(10)) == [5] * 10
    assert len(caught) == 1
    assert unraisable == []


def test_what_other_generators_raise_at_their_end_is_raised():
    def fails():
        try:
            yield 1
        finally:
            raise RuntimeError("lost")

    items = Streamer(fails).iterate()
    next(items)
    with pytest.raises(RuntimeError, match="lost"):
        items.close()


def test_what_a_generator_raises_while_it_runs_is_raised_though_it_reads_alike(unraisable):
    def closes():
        other = ignores(0)
        yield next(other)
        other.close()

    items = iter(RoundRobinMux([Streamer(closes)]))
    assert next(items) == 0
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        next(items)
    assert len(unraisable) <= 1  # its author did not go our way


def test_hooks_are_as_they_were_when_threads_close_side_by_side(unraisable):
    hook = sys.unraisablehook
    barrier = threading.Barrier(4)

    def run():
        barrier.wait()
        for _ in range(50):
            list(Streamer(ignores, 0)(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sys.unraisablehook is hook
    assert unraisable == []
