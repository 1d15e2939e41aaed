"""The thread backend: nothing is copied, threads end with their pool, and what blocks them is told."""

import itertools
import threading

import numpy as np
import pytest

from pescador import (
    DataError,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    buffer_stream,
)
from pescador.testing import Sample, Tagged

from ..kinds import PATIENCE
from ..streams import samples


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "pescador-worker"]


def test_items_are_the_very_objects_that_the_generator_gave():
    items = [object(), None, threading.Lock(), lambda: None]
    with ParallelStreamer(items, "thread") as stream:
        assert all(got is item for got, item in zip(stream, items, strict=True))


def test_what_nobody_else_refers_to_is_not_copied():
    """At any depth; and of all else in an item, only what lies in a container that is held."""
    sent = []

    def sources():
        yield lambda: {"x": np.zeros(3), "y": np.zeros(3)[::2], "z": np.zeros((2, 3), order="F"), "i": 1}
        yield lambda: np.zeros(3)
        yield lambda: [np.zeros(3), (np.zeros(2), {"deep": [np.ones((2, 2)).T]})]
        yield lambda: Sample("a", {"x": np.zeros(3)})
        yield lambda: np.array([None, np.zeros(3)], object)
        yield lambda: (np.zeros(3).view(Tagged),)

    def addresses(item):
        """Return where all parts of an item are."""
        parts = item.values() if isinstance(item, dict) else item
        if isinstance(item, Sample):
            parts = item.values.values()
        if isinstance(item, np.ndarray) and not item.dtype.hasobject:
            return [id(item), item.ctypes.data]
        if isinstance(item, dict | list | tuple | Sample | np.ndarray):
            return [id(item), *(address for part in parts for address in addresses(part))]
        return []

    def source():
        for make in sources():
            for _ in range(2):
                made = [make()]
                sent.append(addresses(made[0]))
                yield made.pop()

    with ParallelStreamer(Streamer(source), "thread") as stream:
        items = list(stream)
        assert [addresses(item) for item in items] == sent
        assert stream.stats()["copied"] == 0


@pytest.mark.parametrize("n_workers", [1, 2])
def test_batches_are_not_copied_whatever_mux_they_go_through(n_workers):
    batches = Streamer(buffer_stream, Streamer(samples, 32, 10), 8)
    mux = ShuffledMux([RoundRobinMux([batches, StochasticMux([batches] * 2, 2, 3)]), batches])
    with ParallelStreamer(mux, "thread", n_workers) as stream:
        assert sum(1 for _ in stream(20)) == 20
        assert stream.stats()["copied"] == 0


def test_objects_that_are_held_and_hold_no_arrays_are_the_very_same():
    class Node:
        def __init__(self):
            self.me, self.names, self.lock = [self], ["a"], threading.Lock()

    node, deep = Node(), []
    for _ in range(100_000):
        deep = [deep]

    def source():
        yield {"node": node}
        yield deep
        while deep:  # or the interpreter frees it in as many steps
            deep[:] = deep[0]

    with ParallelStreamer(Streamer(source), "thread") as stream:
        items = iter(stream)
        assert next(items)["node"] is node
        assert node.me[0] is node
        assert next(items) is deep
        items.close()


def test_what_is_copied_is_counted():
    def source(x):
        for _ in range(3):
            yield {"x": x, "y": np.zeros(7)}

    with ParallelStreamer(Streamer(source, np.zeros(100)), "thread") as stream:
        list(stream)
        assert stream.stats()["copied"] == 3 * 800


def test_an_array_for_which_there_is_no_memory_is_an_error_of_its_item(monkeypatch):
    class Full(np.ndarray):
        def copy(self, order="C"):
            raise MemoryError("no memory left")

    def source():
        x = np.zeros(3).view(Full)
        yield 1
        yield {"x": x}

    with ParallelStreamer(Streamer(source), "thread") as stream:
        items = iter(stream)
        assert next(items) == 1
        with pytest.raises(DataError, match=r"Full.*no memory left"):
            next(items)


def test_a_thread_starts_with_the_first_item_serves_all_epochs_and_ends_with_the_pool():
    stream = ParallelStreamer(range(3), "thread")
    items = iter(stream)
    assert threads() == []
    next(items)
    (thread,) = threads()
    assert thread.daemon
    assert [list(stream), list(stream)] == [[0, 1, 2]] * 2
    assert threads() == [thread]
    stream.close()
    assert threads() == []
    items.close()


def test_a_pool_that_is_closed_while_its_thread_starts_is_closed(monkeypatch):
    start = threading.Thread.start
    stream = ParallelStreamer(range(3), "thread")

    def interrupted(thread):
        if thread.name == "pescador-worker":
            closer = threading.Thread(target=close)
            start(closer)
            closer.join()
        start(thread)

    def close():
        try:
            stream.close()
        except Exception as error:
            raised.append(error)

    raised = []
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(PescadorError, match="was closed"):
        list(stream)
    assert raised == []
    monkeypatch.undo()
    assert list(stream(2)) == [0, 1]
    stream.close()


def test_the_generator_runs_in_another_thread_and_its_exception_keeps_the_frames_of_it():
    def where():
        yield threading.current_thread().name
        raise ZeroDivisionError

    with ParallelStreamer(Streamer(where), "thread") as stream:
        items = iter(stream)
        assert next(items) == "pescador-worker"
        with pytest.raises(ZeroDivisionError) as caught:
            next(items)
        assert "where" in [entry.name for entry in caught.traceback]


def test_a_blocked_generator_keeps_close_no_longer_than_its_timeout_and_is_told_of():
    blocked = threading.Event()

    def waits():
        yield 1
        blocked.wait()

    stream = ParallelStreamer(Streamer(waits), "thread", timeout=0.01)
    items = iter(stream)
    next(items)
    (thread,) = threads()
    with pytest.warns(ResourceWarning, match=r"still runs 0\.01 s .* Use a process backend"):
        stream.close()
    with pytest.raises(PescadorError, match="closed while"):
        next(items)
    blocked.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_pool_may_be_closed_by_its_own_worker():
    def closes():
        stream.close()
        yield 1

    stream = ParallelStreamer(Streamer(closes), "thread")
    with pytest.raises(PescadorError, match="closed while"):
        list(stream)
    for thread in threads():
        thread.join(PATIENCE)


def test_many_threads_take_from_one_pool_what_belongs_to_each():
    barrier = threading.Barrier(8)
    sums = []

    def take(stream, start):
        barrier.wait(PATIENCE)
        sums.append(sum(itertools.islice(stream, start, None)))

    with ParallelStreamer(range(5000), "thread") as stream:
        takers = [threading.Thread(target=take, args=(iter(stream), i)) for i in range(8)]
        for taker in takers:
            taker.start()
        for taker in takers:
            taker.join(PATIENCE)
    assert sorted(sums) == sorted(sum(range(i, 5000)) for i in range(8))
