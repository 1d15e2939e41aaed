"""The process from which workers are forked, how workers die, and how interpreters are started."""

import ast
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from pescador import ParallelStreamer, PescadorError, RoundRobinMux, Streamer, WorkerError
from pescador.backends.processes import launcher

from ...kinds import PATIENCE, ROOT, Gone, Script, process_backends, worker_pid

SOON = 10 if os.environ.get("CI") else 1.5  # seconds


@pytest.fixture
def own_forkserver(forkserver):
    """Have the pools of a test start a forkserver that is theirs."""
    forkserver.close()
    assert launcher.Forkserver.current is None


@contextlib.contextmanager
def impatient():
    """Wait for a second only, while the forkserver is known to be stopped: starting one may take longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "ANSWER_SECONDS", 1)
        yield


@contextlib.contextmanager
def no_memory_for(module, name):
    """Have a function fail for want of memory, and nothing come of it but that."""

    def fails(*_):
        raise MemoryError

    before = psutil.Process().children(recursive=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, fails)
        with pytest.raises(MemoryError):
            yield
    assert psutil.Process().children(recursive=True) == before


@process_backends
@pytest.mark.parametrize("start_method", launcher.START_METHODS)
def test_a_process_that_starts_while_memory_runs_out_is_ended(backend, start_method, own_forkserver):
    stream = ParallelStreamer(Streamer(range, 3), backend=backend, start_method=start_method)
    with no_memory_for(launcher, "watch"):
        list(stream)
    with stream:
        assert list(stream) == [0, 1, 2]


def test_an_interpreter_that_starts_while_memory_runs_out_is_ended(own_forkserver):
    """Popen reads whether its process runs, which takes memory when there is a process."""
    stream = ParallelStreamer(Streamer(range, 3))
    with no_memory_for(os, "read"):
        list(stream)
    with stream:
        assert list(stream) == [0, 1, 2]


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
    workers = launcher.Launcher("forkserver")
    forkserver = psutil.Process(launcher.Forkserver.current._process.pid)
    assert launcher.Forkserver.current.reap(os.getpid(), PATIENCE) == "0"  # it is no child of the forkserver
    stop(forkserver)
    workers.close()
    assert not forkserver.is_running()


def test_a_forkserver_that_goes_on_is_waited_for(own_forkserver):
    workers = launcher.Launcher("forkserver")
    forkserver = psutil.Process(launcher.Forkserver.current._process.pid)
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


# Command lines


def test_the_search_path_holds_what_python_would_use_and_relative_entries_twice(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/one", tmp_path, "", "lib", b"/bytes", "/one", "/two"])
    start = launcher.START_FOLDER
    assert launcher.search_path() == ["/one", "", start, "lib", f"{start}/lib", "/two"]
    assert os.path.isabs(start)
    monkeypatch.setattr(launcher, "START_FOLDER", "")  # it had been deleted
    assert launcher.search_path() == ["/one", "", "lib", "/two"]


@pytest.mark.parametrize("first", [True, False])
def test_a_command_line_is_short_however_long_the_search_path_is(first, monkeypatch, tmp_path):
    folders = [str(tmp_path / f"folder{i}" / ("é" * 70)) for i in range(600)]
    for folder in folders:
        os.makedirs(folder)
    folders += [str(tmp_path / f"{i}" / ("x" * 200)) for i in range(600)]  # there are no such folders
    path = [*folders, *sys.path] if first else [*sys.path, *folders]
    monkeypatch.setattr(sys, "path", path)
    code = "import pescador, numpy, zmq, psutil, cloudpickle; print(sys.path)"
    command = launcher.python_command(code)
    assert max(map(len, map(os.fsencode, command))) < 1 << 17
    output = subprocess.check_output(command, text=True, env=launcher.interpreter_environment())
    found = ast.literal_eval(output)
    kept = [entry for entry in found if entry in folders]
    assert 100 < len(kept) < 600
    assert kept == [entry for entry in folders if entry in kept]
    with ParallelStreamer(Streamer(range, 3), start_method="spawn") as stream:
        assert list(stream) == [0, 1, 2]


APPLICATION = """
import multiprocessing, os, sys
interpreter, sys.executable = sys.executable, sys.argv[1]
sys.frozen = True
import pescador
from pescador.commands import doctor

def take(**options):
    with pescador.ParallelStreamer(pescador.Streamer(range, 3), **options) as stream:
        return list(stream)

for options in ({}, {"start_method": "spawn"}, {"backend": "zmq"}):
    try:
        take(**options)
    except pescador.PescadorError as error:
        assert all(part in str(error) for part in ("set_executable", "'fork'", "'thread'", sys.argv[1]))
    else:
        raise AssertionError
assert {finding.state for finding in doctor._trials(10)} == {"fail"}
assert take(start_method="fork") == take(backend="thread") == [0, 1, 2]
multiprocessing.set_executable(interpreter)
assert take() == take(start_method="spawn") == [0, 1, 2]
print("done")
"""


def test_a_frozen_application_is_not_started_again(tmp_path):
    log, application = tmp_path / "log", tmp_path / "application"
    application.write_text(f"#!/bin/sh\necho started >>{log}\n")
    application.chmod(0o700)
    with Script(tmp_path, APPLICATION, str(application)) as script:
        assert script.finish() == (0, "done\n", "")
    assert not log.exists()


HASHES = """
import os, sys
from pescador import ParallelStreamer, RoundRobinMux, Streamer

def word():
    yield hash("pescador"), os.environ.get("PYTHONHASHSEED"), os.getpid()

def found(streamer, **options):
    with ParallelStreamer(RoundRobinMux([streamer] * 2), n_workers=2, **options) as stream:
        return set(stream)

nested = ParallelStreamer(Streamer(word), start_method="spawn")
items = found(Streamer(word)) | found(Streamer(word), start_method="spawn") | found(nested, backend="zmq")
hashes = {value for value, *_ in items}
assert {environment for _, environment, _ in items} == {seed}
"""


@pytest.mark.parametrize(
    ("seed", "flags", "is_known"),
    [
        (None, [], False),
        (None, ["-I"], False),
        ("random", [], False),
        ("0", [], True),
        ("4294967295", [], True),
        ("7", ["-E"], False),  # the consumer itself did not look at it
    ],
)
def test_all_workers_hash_strings_alike_and_have_the_environment_of_the_consumer(seed, flags, is_known):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    if seed is not None:
        environment["PYTHONHASHSEED"] = seed
    check = "assert hashes == {hash('pescador')}" if is_known else "assert len(hashes) == 1"
    text = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; seed = {seed!r}\n{HASHES}\n{check}, hashes\n"
    subprocess.run([sys.executable, *flags, "-c", text], env=environment, check=True, timeout=2 * PATIENCE)


def test_a_forked_worker_hashes_as_the_consumer_and_those_that_it_starts_agree():
    nested = ParallelStreamer(Streamer(word), start_method="spawn")
    mux = RoundRobinMux([Streamer(word), Streamer(nested)] * 2)
    with ParallelStreamer(mux, n_workers=4, start_method="fork") as stream:
        forked, one, _, other = stream
    assert forked == hash("pescador")
    assert one == other


def word():
    yield hash("pescador")
