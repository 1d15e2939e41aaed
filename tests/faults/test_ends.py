"""A pool ends in bounded time, completely, whatever its workers do and whoever closes it when."""

import atexit
import itertools
import logging
import os
import signal
import threading
import time

import pytest

from pescador import ParallelStreamer, PescadorError, RoundRobinMux, Streamer, backends
from pescador.backends.consumer import process_pool
from pescador.backends.consumer.process_handle import ProcessHandle
from pescador.seeding import Seed

from ..kinds import PATIENCE, Gone, every_background, every_process, process_backends, worker_pid

TIMEOUT = 0.3
SEED = Seed(0)

# close() takes `timeout` + 1 s at most, but many programs share a machine that runs tests.
BOUND = TIMEOUT + (10 if os.environ.get("CI") else 1)


def wait_for_ever(first):
    yield first
    threading.Event().wait()


def telling(path):
    yield 0
    open(path, "w").close()  # which waits for a reader
    threading.Event().wait()


def deaf(first):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield from wait_for_ever(first)


def stopped(first):
    yield first  # the test stops the process


def hanging_at_exit(first):
    atexit.register(threading.Event().wait)
    yield first


def hanging_thread(first):
    threading.Thread(target=threading.Event().wait).start()
    yield first


def refusing(first):
    while True:
        try:
            yield first
        except GeneratorExit:
            threading.Event().wait()


WAYS = (wait_for_ever, deaf, stopped, hanging_at_exit, hanging_thread, refusing)


def closes_in_time(stream):
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < BOUND


@every_process
@pytest.mark.parametrize("way", WAYS)
def test_several_workers_that_do_not_end_are_ended_side_by_side(kind, way):
    mux = RoundRobinMux([Streamer(way, i) for i in range(3)])
    stream = ParallelStreamer(mux, n_workers=3, prefetch=2, timeout=TIMEOUT, **kind)
    items = iter(stream)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    pids = [worker["pid"] for worker in stream.stats()["workers"]]
    gone = Gone(pids)
    if way is stopped:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    closes_in_time(stream)
    assert not gone.wait(0)


@process_backends
def test_streams_that_a_stuck_worker_never_hears_of_keep_nobody_waiting(backend):
    """Their commands are more than a socket holds."""
    with ParallelStreamer(Streamer(wait_for_ever, 0), backend, prefetch=2, timeout=TIMEOUT) as stream:
        items = iter(stream)
        next(items)
        pool = stream._pool._pool
        opened = [pool.open(Streamer([bytes(10_000)]), SEED, None, None) for _ in range(200)]
        assert pool.workers[0].connection.has_unsent
        for other in opened[::2]:
            other.close()
        closes_in_time(stream)
        for other in opened[1::2]:
            with pytest.raises(PescadorError, match="closed while"):
                next(other)


@process_backends
def test_commands_that_had_no_room_are_obeyed_later(backend, tmp_path):
    """Also those that another thread gave while this one already waits."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    with ParallelStreamer(Streamer(reading, path), backend, prefetch=2) as stream:
        items = iter(stream)
        assert next(items) == "first"
        pool = stream._pool._pool
        opened = [pool.open(Streamer([i, bytes(10_000)]), SEED, None, None) for i in range(200)]
        assert pool.workers[0].connection.has_unsent
        with open(path, "w") as file:
            file.write("second")
        assert [next(other) for other in opened] == list(range(200))
        assert next(items) == "second"


def reading_when_told(path, begun):
    yield "first"
    open(begun, "w").close()
    with open(path) as file:
        yield file.read()


def reading(path):
    yield "first"
    with open(path) as file:
        yield file.read()


@process_backends
def test_many_wake_ups_keep_nobody_waiting(backend):
    with ParallelStreamer(Streamer(stopped, 0), backend, prefetch=2, timeout=0) as stream:
        items = iter(stream)
        next(items)
        (worker,) = stream._pool._pool.workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        for _ in range(1 << 14):
            worker._wake_up(0)


@process_backends
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_close_that_waits_says_for_what(backend, is_closed, caplog, tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    stream = ParallelStreamer(Streamer(telling, path), backend, prefetch=2, timeout=1.2)
    items = iter(stream)
    next(items)
    open(path).close()  # it is blocked
    pid = worker_pid(stream)
    if is_closed:
        items.close()
    with caplog.at_level(logging.WARNING, "pescador"):
        stream.close()
    (record,) = caplog.records
    assert f"worker process {pid} has not ended yet: it runs Streamer(telling, " in record.getMessage()
    assert "1.2 s" in record.getMessage()


def test_a_close_that_waits_for_a_thread_says_so(caplog):
    release = threading.Event()

    def blocked():
        yield 0
        release.wait()

    stream = ParallelStreamer(Streamer(blocked), "thread", prefetch=2, timeout=1.2)
    items = iter(stream)
    next(items)
    caplog.set_level(logging.WARNING, "pescador")
    with pytest.warns(ResourceWarning, match="cannot be killed"):
        stream.close()
    release.set()
    assert ["a worker thread has not ended yet" in record.getMessage() for record in caplog.records] == [True]


def test_threads_are_waited_for_side_by_side():
    release = threading.Event()

    def blocked(i):
        yield i
        release.wait()

    mux = RoundRobinMux([Streamer(blocked, i) for i in range(4)])
    stream = ParallelStreamer(mux, "thread", 4, prefetch=8, timeout=TIMEOUT)
    items = iter(stream)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.warns(ResourceWarning, match="cannot be killed"):
        closes_in_time(stream)
    release.set()


@process_backends
def test_without_a_timeout_a_worker_is_waited_for_until_it_ends(backend, tmp_path):
    path, begun = str(tmp_path / "fifo"), str(tmp_path / "begun")
    os.mkfifo(path)
    os.mkfifo(begun)
    pool = backends.get(backend)().open(1, timeout=None, stall_timeout=None)
    items = pool.open(Streamer(reading_when_told, path, begun), SEED, None, 2)
    assert next(items) == "first"
    open(begun).close()  # it would obey before it reads, else
    pid = pool.workers[0].process.pid
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(1.2)  # longer than it may take with timeout=0
    assert closing.is_alive()
    os.kill(pid, 0)
    open(path, "w").close()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert pool.workers[0].process.exit_cause() in ("exited with code 0", "exited with code 1")


# Opening and closing at once


@pytest.fixture
def slow_start(monkeypatch):
    """Have pools, once their workers run, wait until they may be used; return two events."""
    begun, goes_on = threading.Event(), threading.Event()
    for name in ("shm", "zmq", "thread"):
        kind = backends.get(name)
        original = kind.open

        def open_slowly(self, n_workers, *, original=original, **options):
            pool = original(self, n_workers, **options)
            begun.set()
            assert goes_on.wait(PATIENCE)
            return pool

        monkeypatch.setattr(kind, "open", open_slowly)
    yield begun, goes_on
    goes_on.set()


@every_background
@pytest.mark.parametrize("is_in_time", [True, False])
def test_a_pool_that_is_closed_while_it_is_opened_is_not_left(backend, is_in_time, slow_start):
    begun, goes_on = slow_start
    stream = ParallelStreamer(Streamer(range, 3), backend, timeout=PATIENCE if is_in_time else 0)
    errors = []

    def take():
        try:
            list(stream)
        except PescadorError as error:
            errors.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    assert begun.wait(PATIENCE)
    if is_in_time:
        stream._pool._n_closed += 1  # what close() does first; then it waits
        goes_on.set()
    stream.close()
    goes_on.set()
    thread.join()
    assert errors == ["the ParallelStreamer was closed while its workers were being started"]
    assert stream._pool._pool is None
    stream = ParallelStreamer(Streamer(range, 3), backend)
    assert list(stream) == [0, 1, 2]
    stream.close()


@every_background
def test_a_stream_that_is_opened_while_its_pool_is_closed_raises(backend):
    stream = ParallelStreamer(Streamer(range, 3), backend)
    list(stream)
    pool = stream._pool._pool

    def recipe(streamer):
        stream.close()  # in another thread, just after the pool was found open
        return original(streamer)

    original, pool.recipe = pool.recipe, recipe
    with pytest.raises(PescadorError, match="closed while this stream was open"):
        next(pool.open(Streamer(range, 3), SEED, None, None))
    with pytest.raises(PescadorError, match="was closed"):
        pool.open(Streamer(range, 3), SEED, None, None)


@process_backends
def test_a_signal_handler_may_close_what_is_being_opened(backend, slow_start):
    slow_start[1].set()
    stream = ParallelStreamer(Streamer(range, 3), backend)
    kind = backends.get(backend)
    slowly = kind.open

    def interrupted(self, n_workers, **options):
        pool = slowly(self, n_workers, **options)
        stream.close()
        return pool

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "open", interrupted)
        with pytest.raises(PescadorError, match="closed while its workers were being started"):
            list(stream)
    assert stream._pool._pool is None


@process_backends
@pytest.mark.parametrize("n_interrupts", [1, 2])
@pytest.mark.parametrize("place", ["end", "end_streams", "close"])
def test_an_interrupted_close_may_be_repeated(backend, n_interrupts, place, monkeypatch):
    owner = process_pool if place == "end" else ProcessHandle
    original = getattr(owner, place)
    count = itertools.count(1)

    def interrupted(*args, **kwargs):
        if next(count) <= n_interrupts:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    stream = ParallelStreamer(Streamer(itertools.count), backend)
    next(iter(stream))
    gone = Gone([worker_pid(stream)])
    monkeypatch.setattr(owner, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.close()
    for _ in range(n_interrupts):
        try:
            stream.close()
        except KeyboardInterrupt:
            continue
    assert not gone.wait(0)
    assert next(iter(stream)) == 0
    stream.close()
