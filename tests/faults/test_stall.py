"""A worker that delivers nothing is given up: the consumer learns what it did, and nothing of it stays."""

import ctypes
import os
import pickle
import signal
import threading
import time

import psutil
import pytest

from pescador import ParallelStreamer, PescadorError, RoundRobinMux, Streamer, WorkerError
from pescador.backends.processes.stacks import STALL_SIGNAL
from pescador.seeding import Seed

from ..kinds import (
    KINDS,
    PATIENCE,
    START_METHODS,
    Gone,
    every_background,
    every_process,
    process_backends,
    worker_pid,
)

WORKERS = {name: kind for name, kind in KINDS.items() if name != "serial"}
every_worker = pytest.mark.parametrize("kind", WORKERS.values(), ids=WORKERS)

STALL = 0.3  # seconds
SEED = Seed(0)

release = threading.Event()


@pytest.fixture(autouse=True)
def threads_end():
    release.clear()
    yield
    release.set()


def wait_for_an_event():
    release.wait()


def sleep_with_the_lock_held():
    ctypes.PyDLL(None).sleep(1000)


def stop_this_process():
    os.kill(os.getpid(), signal.SIGSTOP)


def stuck_once(path, how):
    """Gets stuck after the first item, if there is no such file yet."""
    yield os.getpid()
    if not os.path.exists(path):
        open(path, "w").close()
        how()
    yield os.getpid()


def stuck(how):
    yield os.getpid()
    how()


def opened(streamer, **options):
    """Return a ParallelStreamer whose workers run and have imported this module, which is no stall."""
    stream = ParallelStreamer(streamer, prefetch=1, stall_timeout=PATIENCE, **options)
    pool = stream._pool.get()
    first = [pool.open(Streamer(constant), SEED, None, None) for _ in pool.workers]
    for items in first:
        next(items)
        items.close()
    for worker in pool.workers:
        worker.stall_timeout = STALL
    return stream


def stalls(items):
    with pytest.raises(WorkerError, match="delivered nothing") as caught:
        for _ in items:
            pass
    return str(caught.value)


def gone(pids):
    return not Gone(pids).wait(PATIENCE)


@every_worker
@pytest.mark.parametrize("how", [wait_for_an_event, sleep_with_the_lock_held])
def test_the_error_tells_the_stream_the_time_and_the_stack_and_the_next_iteration_works(kind, how, tmp_path):
    in_thread = kind["backend"] == "thread"
    if in_thread and how is sleep_with_the_lock_held:
        pytest.skip("it keeps the consumer from running, too")
    with opened(Streamer(stuck_once, str(tmp_path / "stuck"), how), **kind) as stream:
        items = iter(stream)
        pid = next(items)
        message = stalls(items)
        assert f"for {STALL} s (stall_timeout={STALL})" in message
        assert "It was running Streamer(stuck_once, " in message
        assert "in stuck_once" in message
        assert f"in {how.__name__}" in message
        assert list(items) == []
        if in_thread:
            assert "a worker thread delivered" in message
            assert "cannot be ended" in message
            assert len(list(stream)) == 2
        else:
            assert f"worker process {pid} delivered" in message
            assert gone([pid])
            assert pid not in list(stream)


@every_process
def test_of_a_stopped_process_there_is_no_stack(kind):
    with opened(Streamer(stuck, stop_this_process), **kind) as stream:
        items = iter(stream)
        pid = next(items)
        started = time.monotonic()
        message = stalls(items)
        waited = time.monotonic() - started
        assert message.endswith("It gave no stack: the process was stopped.")
        assert gone([pid])
        assert waited < (10 if os.environ.get("CI") else STALL + 2)


class Hanging:
    def __reduce__(self):
        return wait_for_an_event, ()


@every_process
def test_a_recipe_that_hangs_while_it_is_loaded(kind):
    with opened(Streamer(stuck, Hanging()), **kind) as stream:
        pid = worker_pid(stream)
        message = stalls(stream)
        assert "It was starting, or loading, opening or closing a stream; open were Streamer(stuck" in message
        assert "in _open" in message
        assert "in wait_for_an_event" in message
        assert gone([pid])


def without_reports():
    signal.signal(STALL_SIGNAL, signal.SIG_IGN)
    release.wait()


@process_backends
def test_a_worker_that_ignores_the_signal_is_killed(backend):
    with opened(Streamer(stuck, without_reports), backend=backend) as stream:
        items = iter(stream)
        pid = next(items)
        assert "It gave no stack: the process was sleeping." in stalls(items)
        assert gone([pid])


def slow(n):
    for i in range(n):
        release.wait(0.25)
        yield i


@process_backends
def test_a_worker_that_takes_no_commands_does_not_keep_the_consumer_from_noticing(backend):
    with opened(Streamer(stuck, wait_for_an_event), backend=backend) as stream:
        pool = stream._pool._pool
        (worker,) = pool.workers
        items = iter(stream)
        pid = next(items)
        while not worker.connection.has_unsent:
            pool.open(Streamer([bytes(20_000)]), SEED, None, None)
        assert "in wait_for_an_event" in stalls(items)
        assert gone([pid])


@every_background
def test_a_slow_stream_does_not_stall_as_long_as_something_comes(backend):
    # Longer than what it may be quiet, in sum.
    with ParallelStreamer(Streamer(slow, 8), backend, prefetch=1, stall_timeout=1.5) as stream:
        assert list(stream) == list(range(8))


def test_a_wait_that_ended_far_too_late_does_not_count():
    """As when consumer and worker were stopped together, by Ctrl-Z."""
    with opened(Streamer(stuck, wait_for_an_event), backend="thread") as stream:
        items = iter(stream)
        next(items)
        (worker,) = stream._pool._pool.workers
        assert not worker.give_up(time.perf_counter() - 100)
        release.set()
        assert list(items) == []


@every_background
def test_all_streams_of_a_stalled_worker_raise_also_those_opened_later(backend):
    with opened(Streamer(stuck, wait_for_an_event), backend=backend) as stream:
        pool = stream._pool._pool
        items = iter(stream)
        next(items)
        other = pool.open(Streamer(constant), SEED, None, None)
        message = stalls(items)
        assert pool.broken
        assert stalls(pool.open(Streamer(constant), SEED, None, None)) == message
        assert stalls(other) == message


@every_worker
def test_one_of_three_workers_stalls(kind):
    streams = [Streamer(constant), Streamer(stuck, wait_for_an_event), Streamer(constant)]
    with opened(RoundRobinMux(streams), n_workers=3, **kind) as stream:
        items = iter(stream)
        pids = {next(items) for _ in range(3)}
        assert "It was running Streamer(stuck, " in stalls(items)
        if kind["backend"] != "thread":
            assert len(pids) == 3
            next(iter(stream))  # opens another pool
            assert gone(pids)


def constant():
    while True:
        yield os.getpid()


@process_backends
@pytest.mark.parametrize("inner", START_METHODS)
def test_a_nested_worker_ends_with_the_one_that_waits_for_it(backend, inner):
    nested = ParallelStreamer(
        Streamer(stuck, sleep_with_the_lock_held), "zmq", prefetch=1, start_method=inner
    )
    with ParallelStreamer(nested, backend, prefetch=1, stall_timeout=PATIENCE) as stream:
        items = iter(stream)
        inner_pid = next(items)
        outer_pid = worker_pid(stream)
        offspring = psutil.Process(outer_pid).children(recursive=True)
        assert inner_pid in [process.pid for process in offspring]
        stream._pool._pool.workers[0].stall_timeout = STALL
        message = stalls(items)
        assert "It was running ParallelStreamer(" in message
        assert "process_handle.py" in message
        assert gone([outer_pid, *(process.pid for process in offspring)])


@every_background
def test_a_nested_stall_raises_through_all_workers(backend):
    nested = ParallelStreamer(Streamer(stuck, sleep_with_the_lock_held), prefetch=1, stall_timeout=3)
    with ParallelStreamer(nested, backend, prefetch=1) as stream:
        items = iter(stream)
        pid = next(items)
        message = stalls(items)
        assert f"worker process {pid} delivered" in message
        assert "in sleep_with_the_lock_held" in message


def test_a_serial_stream_has_nothing_to_wait_for():
    assert list(ParallelStreamer(range(3), "serial", stall_timeout=1)) == [0, 1, 2]


@pytest.mark.parametrize("value", [0, -1, "1", 1e7, float("nan")])
def test_a_time_that_cannot_be_waited_is_refused(value):
    with pytest.raises(PescadorError, match="stall_timeout is"):
        ParallelStreamer(range(3), stall_timeout=value)


def test_it_is_off_by_default_and_pickled_along():
    assert ParallelStreamer(range(3)).stall_timeout is None
    stream = pickle.loads(pickle.dumps(ParallelStreamer(range(3), stall_timeout=7)))
    assert stream.stall_timeout == 7
    with stream:
        assert list(stream) == [0, 1, 2]
        assert [worker.stall_timeout for worker in stream._pool._pool.workers] == [7]
