"""What goes wrong on a worker arrives in the consumer, and nothing of it stays."""

import gc
import os
import signal
import sys
import threading
import time
import traceback

import numpy as np
import pytest

from pescador import DataError, ParallelStreamer, PescadorError, Streamer, WorkerError
from pescador.backends.errors import RemoteTraceback

from ..kinds import PATIENCE, Gone, every_background, every_kind, every_process, worker_pid


class Told(Exception):
    """An exception with a state."""

    def __init__(self, message, code):
        super().__init__(message, code)
        self.code = code


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("this one stays")


class Unloadable(Exception):
    """Is pickled, but its constructor takes something else than what is pickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Harmful:
    """Cannot be loaded."""

    def __reduce__(self):
        return _raise, ("loading failed",)


def _raise(text):
    raise OSError(text)


def failing(n, error, *arguments):
    yield from range(n)
    raise error(*arguments)


def endless():
    i = 0
    while True:
        yield i
        i += 1


def blocking(n):
    yield from range(n)
    threading.Event().wait()


def leaving(n, leave, code):
    yield from range(n)
    leave(code)


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


@every_kind
def test_five_items_and_then_the_exception_with_its_traceback(kind):
    with ParallelStreamer(Streamer(failing, 5, Told, "after five", 7), **kind) as stream:
        for _ in range(2):  # the worker lives on
            items, error = take_all(stream)
            assert items == [0, 1, 2, 3, 4]
            assert type(error) is Told
            assert (error.args, error.code) == (("after five", 7), 7)
            if "start_method" in kind:
                assert type(error.__cause__) is RemoteTraceback
                assert "in failing" in str(error.__cause__)
            else:
                assert "failing" in [entry.name for entry in traceback.extract_tb(error.__traceback__)]


@every_process
@pytest.mark.parametrize("error", [(Unpicklable,), (Unloadable, "salt", "pepper")], ids=["pickle", "load"])
def test_an_exception_that_cannot_travel_arrives_as_text(kind, error):
    with ParallelStreamer(Streamer(failing, 5, *error), **kind) as stream:
        items, caught = take_all(stream)
    assert items == [0, 1, 2, 3, 4]
    assert type(caught) is WorkerError
    assert error[0].__name__ in str(caught)
    assert "in failing" in str(caught)
    assert ("salt and pepper" in str(caught)) == (len(error) > 1)


@every_process
def test_a_recipe_that_cannot_be_pickled_names_the_remedy(kind):
    with (
        ParallelStreamer(Streamer(failing, threading.Lock(), OSError), **kind) as stream,
        refusal("must be picklable"),
    ):
        list(stream)


@every_process
def test_an_open_iterator_cannot_be_shipped_and_the_message_names_the_fix(kind):
    with (
        ParallelStreamer(Streamer(iter([1, 2])), **kind) as stream,
        refusal(r"Streamer\(buffer_stream, stream, 16\)"),
    ):
        list(stream)


@every_process
def test_a_recipe_that_cannot_be_loaded_raises(kind):
    with ParallelStreamer(Streamer(failing, Harmful(), OSError), **kind) as stream:
        _, error = take_all(stream)
        assert type(error) is WorkerError
        assert "loading failed" in str(error)


@every_process
def test_an_item_that_cannot_be_sent_is_described_after_those_before_it(kind):
    recipe = Streamer([{"x": np.zeros(3)}, {"x": np.zeros((2, 3)), "lock": _Unsendable()}, {}])
    with ParallelStreamer(Streamer(_copies, recipe), **kind) as stream:
        items, error = take_all(stream)
    assert len(items) == 1
    assert type(error) is DataError
    assert "(2, 3)" in str(error)
    assert "cannot be sent" in str(error)


class _Unsendable:
    def __init__(self):
        self.lock = None


def _copies(items):
    for item in items:
        if "lock" in item:
            item["lock"].lock = threading.Lock()
        yield item


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


@every_kind
def test_sys_exit_in_a_generator_raises_in_the_consumer(kind):
    with ParallelStreamer(Streamer(leaving, 3, sys.exit, 7), **kind) as stream:
        items, error = take_all(stream)
    assert items == [0, 1, 2]
    assert type(error) is SystemExit
    assert error.code == 7


@every_process
def test_os_exit_in_a_generator_is_a_death(kind):
    with ParallelStreamer(Streamer(leaving, 0, os._exit, 7), **kind) as stream:
        _, error = take_all(stream)
    assert type(error) is WorkerError
    assert "exited with code 7" in str(error)


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
