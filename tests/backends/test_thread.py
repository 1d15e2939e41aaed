"""The thread backend: nothing is copied, threads end with their pool, and what blocks them is told."""

import itertools
import threading

import pytest

from pescador import ParallelStreamer, PescadorError, Streamer

from ..kinds import PATIENCE


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "pescador-worker"]


def test_items_are_the_very_objects_that_the_generator_gave():
    items = [object(), None, threading.Lock(), lambda: None]
    with ParallelStreamer(items, "thread") as stream:
        assert all(got is item for got, item in zip(stream, items, strict=True))


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
