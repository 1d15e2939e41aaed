"""The process from which workers are forked, and what is told when it or a worker dies."""

import contextlib
import errno
import os
import signal
import sys
import threading
import time

import psutil
import pytest

from pescador import ParallelStreamer, PescadorError, RoundRobinMux, Streamer, WorkerError
from pescador.backends.processes import forkserver as consumers_side
from pescador.backends.processes.forkserver import Forkserver
from pescador.backends.processes.launcher import Launcher

from ...faults.scripts import run
from ...forks import Child
from ...kinds import PATIENCE, Gone, process_backends, worker_pid
from .conftest import end_forkserver

SOON = 10 if os.environ.get("CI") else 1.5  # seconds


@contextlib.contextmanager
def impatient():
    """Wait for a second only, while the forkserver is known to be stopped: starting one may take longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumers_side, "ANSWER_SECONDS", 1)
        yield


def forkserver_of(stream):
    """Return the process from which the only worker was forked, once it has been."""
    return psutil.Process(worker_pid(stream)).parent()


def stop(process):
    process.send_signal(signal.SIGSTOP)
    while process.status() != psutil.STATUS_STOPPED:
        pass


@contextlib.contextmanager
def refusal(pid, question):
    error = rf"process {pid}, .*'{question}.* for 1 s \(it was stopped\)"
    with impatient(), pytest.raises(PescadorError, match=error):
        yield


@process_backends
def test_a_forkserver_that_is_stopped_is_an_error_when_a_pool_opens(backend, own_forkserver):
    with ParallelStreamer(Streamer(range, 10**6), backend=backend) as first:
        items = iter(first)
        next(items)
        forkserver = forkserver_of(first)
        stop(forkserver)
        second = ParallelStreamer(Streamer(range, 3), backend=backend)
        with refusal(forkserver.pid, "fork"):
            list(second)
        assert not forkserver.is_running()
        with second:
            assert list(second) == [0, 1, 2]
            assert forkserver_of(second).pid != forkserver.pid
        # What the first had on its worker is lost, and its next iteration works as well.
        with pytest.raises(
            WorkerError, match=f"SIGKILL together with process {forkserver.pid}.* was stopped"
        ):
            list(items)
        assert next(iter(first)) == 0


@process_backends
@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_forkserver_that_is_stopped_does_not_keep_a_pool_from_closing(backend, n_workers, own_forkserver):
    stream = ParallelStreamer(RoundRobinMux([Streamer(range, 3)] * 3), backend, n_workers)
    assert len(list(stream)) == 9
    forkserver = psutil.Process(stream.stats()["workers"][0]["pid"]).parent()
    gone = Gone(worker["pid"] for worker in stream.stats()["workers"])
    stop(forkserver)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < SOON
    assert not forkserver.is_running()
    assert not gone.wait(0)
    assert len(list(stream)) == 9
    stream.close()


def test_a_forkserver_that_does_not_end_is_killed(own_forkserver):
    workers = Launcher("forkserver")
    forkserver = psutil.Process(Forkserver.current._process.pid)
    assert Forkserver.current.reap(os.getpid(), PATIENCE) == "0"  # it is no child of the forkserver
    stop(forkserver)
    workers.close()
    end_forkserver()
    assert not forkserver.is_running()


def test_a_forkserver_that_goes_on_is_waited_for(own_forkserver):
    workers = Launcher("forkserver")
    forkserver = psutil.Process(Forkserver.current._process.pid)
    stop(forkserver)
    timer = threading.Timer(1.2, forkserver.resume)  # nothing waits for this time but the pool that opens
    timer.start()
    with ParallelStreamer(Streamer(range, 3)) as stream:
        assert list(stream) == [0, 1, 2]
        assert forkserver_of(stream) == forkserver
    timer.join()
    workers.close()


# What a dead worker tells


def test_the_cause_of_death_is_told_also_if_the_forkserver_is_late(own_forkserver):
    with ParallelStreamer(Streamer(range, 10**6)) as stream:
        items = iter(stream)
        next(items)
        forkserver = forkserver_of(stream)
        (worker,) = stream._pool._pool.workers
        stop(forkserver)
        os.kill(worker.process.pid, signal.SIGSEGV)
        assert worker.process.wait(PATIENCE)
        forkserver.resume()
        with pytest.raises(WorkerError, match="was killed by SIGSEGV"):
            list(items)


@process_backends
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_death_of_the_forkserver_is_told(backend, number, own_forkserver):
    with ParallelStreamer(Streamer(range, 10**6), backend) as stream:
        items = iter(stream)
        next(items)
        forkserver = forkserver_of(stream)
        forkserver.send_signal(number)
        error = f"SIGKILL together with process {forkserver.pid}, .* was killed by {number.name}"
        with pytest.raises(WorkerError, match=error):
            list(items)


@process_backends
def test_a_consumer_without_descriptors_leaves_the_forkserver_and_its_workers_alone(backend, own_forkserver):
    def none_left():
        raise OSError(errno.EMFILE, "Too many open files")

    with ParallelStreamer(Streamer(range, 10**6), backend=backend) as first:
        items = iter(first)
        next(items)
        server = Forkserver.current
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consumers_side.Connection, "pair", none_left)
            with pytest.raises(OSError, match="Too many"):
                server.fork(())
            second = ParallelStreamer(Streamer(range, 3), backend=backend)
            with pytest.raises(PescadorError, match="ulimit -n"):
                list(second)
        assert Forkserver.current is server
        assert next(items) == 1


def test_a_worker_that_ended_while_its_consumer_had_no_descriptors_is_no_orphan(own_forkserver):
    def none_left():
        raise OSError(errno.EMFILE, "Too many open files")

    with ParallelStreamer(Streamer(os._exit, 3)) as stream:
        with pytest.MonkeyPatch.context() as patch:
            pool = stream._pool.get()
            (worker,) = pool.workers
            patch.setattr(consumers_side.Connection, "pair", none_left)
            os.kill(worker.process.pid, signal.SIGKILL)
            assert worker.process.wait(PATIENCE)
        assert worker.process.exit_cause().startswith("was killed by SIGKILL; did the system run out")


def test_questions_that_find_no_room_are_asked_again(own_forkserver, monkeypatch):
    with ParallelStreamer(Streamer(range, 3)) as stream:
        list(stream)
        server = Forkserver.current
        send = server._connection._send
        full = iter([True, True])
        monkeypatch.setattr(
            server._connection, "_send", lambda *frame: 0 if next(full, False) else send(*frame)
        )
        assert server.reap(os.getpid(), PATIENCE) == "0"


# How long it lives


def open_once(**options):
    """Open a pool and close it; return the forkserver."""
    with ParallelStreamer(Streamer(range, 3), **options) as stream:
        assert list(stream) == [0, 1, 2]
        return forkserver_of(stream)


@process_backends
def test_a_forkserver_stays_when_pools_are_closed_and_waits_in_the_kernel(backend, own_forkserver):
    forkserver = open_once(backend=backend)
    assert psutil.Process().children().count(forkserver) == 1
    assert not forkserver.children()
    while forkserver.status() != psutil.STATUS_SLEEPING:  # it looks once more for what the worker has left
        pass
    before = forkserver.num_ctx_switches()
    time.sleep(0.3)  # in which somebody who looks now and then would have done so
    assert forkserver.num_ctx_switches() == before
    assert open_once(backend=backend) == forkserver


def test_a_forkserver_that_is_killed_between_two_pools_is_replaced(own_forkserver):
    forkserver = open_once()
    forkserver.kill()
    assert open_once() != forkserver
    assert not forkserver.is_running()


def test_a_worker_of_which_nobody_heard_ends_with_its_forkserver(own_forkserver):
    def interrupted(*_):
        raise KeyboardInterrupt

    forkserver = open_once()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumers_side, "_comes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(ParallelStreamer(Streamer(range, 3)))
    assert not forkserver.is_running()
    assert open_once() != forkserver


CLOSED = """
with ParallelStreamer(Streamer(range, 3)) as stream:
    list(stream)
say("ready")
sys.stdin.readline()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, 0])
def test_a_forkserver_without_pools_ends_with_its_consumer(number, tmp_path):
    with run(tmp_path, {}, CLOSED) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        if number:
            script.process.send_signal(number)
            assert not offspring.wait(2)
        else:
            assert script.finish() == (0, "", "")
            assert not offspring.wait(0)  # the interpreter has waited for it


def test_a_forked_child_has_a_forkserver_of_its_own(own_forkserver):
    forkserver = open_once()
    child = Child(lambda wait: open_once().pid)
    assert child.result() != forkserver.pid
    assert open_once() == forkserver


# It is like a process that is started now


@pytest.mark.parametrize(
    "change", ["environment", "search path", "mode of files", "processors", "working directory"]
)
def test_workers_are_as_if_their_pool_had_started_a_forkserver(change, own_forkserver, tmp_path, monkeypatch):
    forkserver = open_once()
    undo = contextlib.ExitStack()
    if change == "environment":
        monkeypatch.setenv("PESCADOR_TEST", "1")
    elif change == "search path":
        monkeypatch.syspath_prepend(tmp_path)
    elif change == "working directory":
        monkeypatch.chdir(tmp_path)
    elif change == "mode of files":
        undo.callback(os.umask, os.umask(0o027))
    else:
        processors = os.sched_getaffinity(0)
        undo.callback(os.sched_setaffinity, 0, processors)
        os.sched_setaffinity(0, [min(processors)])
    with undo:
        now = open_once()
        assert (now == forkserver) == (change == "working directory")  # which every worker is told anyway
        with ParallelStreamer(Streamer(surroundings)) as stream:
            assert list(stream) == list(surroundings())
    assert forkserver.is_running() == (change == "working directory")


def surroundings():
    mask = os.umask(0)
    os.umask(mask)
    path = list(dict.fromkeys(sys.path))  # a package may put into it what is there; a worker gets that once
    yield os.environ.get("PESCADOR_TEST"), path, os.getcwd(), mask, os.sched_getaffinity(0)


def test_a_pool_that_is_open_keeps_the_forkserver_that_another_one_no_longer_uses(
    own_forkserver, monkeypatch
):
    with ParallelStreamer(Streamer(range, 10**6)) as first:
        items = iter(first)
        next(items)
        forkserver = forkserver_of(first)
        monkeypatch.setenv("PESCADOR_TEST", "1")
        assert open_once() != forkserver
        assert forkserver.is_running()
        assert next(items) == 1
    assert not forkserver.is_running()


def test_what_workers_print_goes_where_their_consumer_prints_now(own_forkserver):
    """Also where that is a pipe: nobody keeps its other end open when the pool is closed."""
    open_once()
    reader, writer = os.pipe()
    terminal = os.dup(1)
    os.dup2(writer, 1)
    try:
        with ParallelStreamer(Streamer(printing)) as stream:
            list(stream)
    finally:
        os.dup2(terminal, 1)
        os.close(terminal)
        os.close(writer)
    with open(reader) as file:
        assert file.read() == "from a worker\n"


def printing():
    os.write(1, b"from a worker\n")
    yield 1
