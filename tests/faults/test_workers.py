"""What goes wrong on a worker arrives in the consumer, and nothing of it stays: beyond the table."""

import gc
import os
import signal
import threading
import time
from collections import deque
from contextlib import closing

import numpy as np
import pytest

from pescador import ParallelStreamer, PescadorError, Streamer, WorkerError, backends
from pescador.seeding import Seed

from ..kinds import PATIENCE, Gone, every_background, every_kind, every_process, process_backends, worker_pid


def endless():
    i = 0
    while True:
        yield i
        i += 1


def blocking(n):
    yield from range(n)
    threading.Event().wait()


def telling(path):
    """Writes a line when it is closed."""
    try:
        yield from endless()
    finally:
        with open(path, "a") as file:
            file.write("closed\n")


def take_all(items):
    """Return the items, and the exception that ends them."""
    taken = []
    try:
        for item in items:
            taken.append(item)
    except BaseException as error:
        return taken, error
    raise AssertionError(f"it ended without an exception after {len(taken)} items")


def refusal(words):
    return pytest.raises(PescadorError, match=words)


@every_process
def test_an_open_iterator_cannot_be_shipped_and_the_message_names_the_fix(kind):
    with (
        ParallelStreamer(Streamer(iter([1, 2])), **kind) as stream,
        refusal(r"Streamer\(buffer_stream, stream, 16\)"),
    ):
        list(stream)


@every_process
def test_a_killed_worker_is_noticed_in_under_a_second_and_the_next_iteration_has_a_new_one(kind):
    with ParallelStreamer(Streamer(blocking, 3), prefetch=2, **kind) as stream:
        for _ in range(2):
            items = iter(stream)
            assert [next(items) for _ in range(3)] == [0, 1, 2]
            pid = worker_pid(stream)
            killed = []

            def kill(pid=pid, killed=killed):
                killed.append(time.monotonic())
                os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            with pytest.raises(WorkerError, match=rf"{pid} was killed by SIGKILL.*memory.*blocking"):
                next(items)
            waited = time.monotonic() - killed[0]
            killer.join()
            assert waited < (5 if os.environ.get("CI") else 1)
            with pytest.raises(StopIteration):
                next(items)


@every_process
def test_all_streams_of_a_killed_worker_learn_of_it(kind):
    with ParallelStreamer(Streamer(endless), **kind) as stream:
        opened = [iter(stream), iter(stream)]
        for items in opened:
            next(items)
        pid = worker_pid(stream)
        gone = Gone([pid])
        os.kill(pid, signal.SIGKILL)
        assert not gone.wait(PATIENCE)
        assert next(iter(stream)) == 0  # from a new worker, before anybody has looked at the old one
        for items in opened:
            _, error = take_all(items)
            assert type(error) is WorkerError
            assert f"{pid} was killed by SIGKILL" in str(error)


@every_background
def test_an_exception_on_closing_does_not_hurt_other_streams(backend):
    def grudging():
        try:
            yield from endless()
        finally:
            raise SystemExit("not yet")

    with ParallelStreamer(Streamer(grudging), backend) as stream:
        one, other = iter(stream), iter(stream)
        assert [next(one), next(other)] == [0, 0]
        one.close()
        assert [next(other) for _ in range(2000)][-1] == 2000


def ways_to_end(stream):
    """Each leaves an iteration in another way."""

    def break_off():
        for item in stream:
            if item == 3:
                break

    def close():
        items = iter(stream)
        next(items)
        items.close()

    def forget():
        items = iter(stream)
        next(items)
        cycle = [items]
        cycle.append(cycle)
        del cycle, items
        gc.collect()

    def raise_in_the_loop():
        with pytest.raises(ZeroDivisionError):
            sum(1 // (item - 3) for item in stream)

    return break_off, close, forget, raise_in_the_loop


@every_kind
@pytest.mark.parametrize("way", range(4), ids=["break", "close", "gc", "raise"])
def test_a_generator_is_closed_where_it_runs_however_its_iteration_ends(kind, way, tmp_path):
    path = tmp_path / "closed"
    os.mkfifo(path)
    with ParallelStreamer(Streamer(telling, str(path)), **kind) as stream:
        lines = []
        reader = threading.Thread(target=lambda: lines.append(path.read_text()))
        reader.start()
        ways_to_end(stream)[way]()
        reader.join(PATIENCE)  # reading ends when the generator has written
        assert lines == ["closed\n"]


@every_kind
@pytest.mark.parametrize("end", ["close", "with", "gc"])
def test_nothing_is_left_when_a_parallel_streamer_with_open_iterators_ends(kind, end, tmp_path):
    stream = ParallelStreamer(ParallelStreamer(Streamer(telling, str(tmp_path / "log"))), **kind)
    items = iter(stream)
    next(items)
    pid = worker_pid(stream)
    if end == "close":
        stream.close()
    elif end == "with":
        with stream:
            pass
    else:
        items.close()
        del stream
    if pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    stream = items = None  # the inner one, too, where it is in this process
    assert (tmp_path / "log").read_text() == "closed\n"


@every_process
def test_items_that_came_before_the_end_of_the_pool_are_dropped_with_it(kind):
    stream = ParallelStreamer(Streamer([{"x": np.zeros(50_000)}] * 10), prefetch=4, **kind)
    items = iter(stream)
    kept = next(items)
    stream.close()
    with pytest.raises(PescadorError, match="closed while this stream was open"):
        next(items)
    kept["x"] += 1  # still there
    assert kept["x"].sum() == 50_000


@process_backends
def test_a_record_that_comes_while_its_stream_is_closed_is_given_back(backend):
    pool = backends.get(backend)().open(1, timeout=5, stall_timeout=None)
    with closing(pool):
        stream = pool.open(Streamer([{"x": np.zeros(50_000)}] * 10), Seed(), None, 1)

        class Queue(deque):
            def extend(self, entries):
                stream.close()  # as another thread may, just now
                super().extend(entries)

        stream.queue = Queue()
        assert list(stream) == []
        assert not stream.queue
        assert pool.workers[0]._receiver.n_released == 50_000 * 8


@every_background
def test_a_pool_may_be_closed_while_another_thread_waits_for_an_item(backend):
    stream = ParallelStreamer(Streamer(waiting, 1), backend, timeout=0)
    items = iter(stream)
    next(items)
    caught = []

    def run():
        with pytest.raises(PescadorError, match="closed while") as error:
            next(items)
        caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    if backend == "thread":
        with pytest.warns(ResourceWarning, match="cannot be killed"):
            stream.close()
        release.set()
    else:
        stream.close()
    thread.join(PATIENCE)
    assert len(caught) == 1


release = threading.Event()


def waiting(n):
    yield from range(n)
    release.wait()
