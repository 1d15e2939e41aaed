"""The process from which workers are forked: what becomes of pools when it is stopped."""

import contextlib
import os
import signal
import threading

import psutil
import pytest

from pescador import ParallelStreamer, PescadorError, Streamer, WorkerError
from pescador.backends import launch

from ..kinds import process_backends, worker_pid


@pytest.fixture
def own_zygote(zygote):
    """Have the pools of a test start a zygote that is theirs."""
    zygote.close()
    assert launch._Zygote.current is None


@contextlib.contextmanager
def impatient():
    """Wait for a second only, as long as the zygote is known to be stopped: starting one may take longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "ANSWER_SECONDS", 1)
        yield


def zygote_of(stream):
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
def test_a_zygote_that_is_stopped_is_an_error_when_a_pool_opens(backend, own_zygote):
    with ParallelStreamer(Streamer(range, 10**6), backend=backend) as first:
        items = iter(first)
        next(items)
        zygote = zygote_of(first)
        stop(zygote)
        second = ParallelStreamer(Streamer(range, 3), backend=backend)
        with refusal(zygote.pid, "fork"):
            list(second)
        assert not zygote.is_running()
        with second:
            assert list(second) == [0, 1, 2]
            assert zygote_of(second).pid != zygote.pid
        # What the first had on its worker is lost, and its next iteration works as well.
        with pytest.raises(WorkerError, match="ended"):
            list(items)
        assert next(iter(first)) == 0


@process_backends
def test_a_zygote_that_is_stopped_is_an_error_when_a_pool_is_closed(backend, own_zygote):
    stream = ParallelStreamer(Streamer(range, 3), backend=backend)
    assert list(stream) == [0, 1, 2]
    zygote = zygote_of(stream)
    stop(zygote)
    with refusal(zygote.pid, "reap"):
        stream.close()
    assert not zygote.is_running()
    assert list(stream) == [0, 1, 2]
    stream.close()


def test_a_zygote_that_does_not_end_is_killed(own_zygote):
    launcher = launch.Launcher("forkserver")
    zygote = psutil.Process(launch._Zygote.current._process.pid)
    assert launch._Zygote.current.ask(f"reap {os.getpid()}") == "0"  # it is no child of the zygote
    stop(zygote)
    with impatient():
        launcher.close()
    assert not zygote.is_running()


def test_a_zygote_that_goes_on_is_waited_for(own_zygote):
    launcher = launch.Launcher("forkserver")
    zygote = psutil.Process(launch._Zygote.current._process.pid)
    stop(zygote)
    timer = threading.Timer(1.2, zygote.resume)  # nothing waits for this time but the pool that opens
    timer.start()
    with ParallelStreamer(Streamer(range, 3)) as stream:
        assert list(stream) == [0, 1, 2]
        assert zygote_of(stream) == zygote
    timer.join()
    launcher.close()
