"""What a worker does at its end: exit functions, and the end of all that its generators have started."""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import resource_tracker, shared_memory

import pytest

from pescador import ParallelStreamer, RoundRobinMux, Streamer

from ...faults.scripts import run
from ...kinds import PATIENCE, Gone, every_process, process_backends, worker_pid

kept = []  # by a worker


def note(path, line):
    with open(path, "a") as file:
        file.write(line + "\n")


def add(i, j):
    return i + j


def with_exit_function(path):
    atexit.register(note, path, "end")


def with_thread(path):
    main = threading.main_thread()
    threading.Thread(target=lambda: (main.join(), note(path, "end"))).start()


def with_finalizer(path):
    kept.append(threading.Event())
    weakref.finalize(kept[-1], note, path, "end")


def with_folder(path):
    kept.append(tempfile.TemporaryDirectory(dir=os.path.dirname(path)))
    note(path, "end")


def with_thread_pool(path):
    kept.append(ThreadPoolExecutor(1))
    assert kept[-1].submit(add, 1, 2).result() == 3
    kept[-1].submit(note, path, "end")


def with_process_pool(path):
    kept.append(ProcessPoolExecutor(2))
    assert kept[-1].submit(add, 1, 2).result() == 3
    kept[-1].submit(note, path, "end")


def with_manager(path):
    kept.append(multiprocessing.Manager())
    kept.append(kept[-1].list([1]))
    atexit.register(lambda: note(path, "end"))


def with_output(path):
    sys.stdout = open(path, "w")  # noqa: SIM115
    print("end")


WAYS = (
    with_exit_function,
    with_thread,
    with_finalizer,
    with_folder,
    with_thread_pool,
    with_process_pool,
    with_manager,
    with_output,
)


def leaving(ways):
    for way, path in ways:
        way(path)
        yield os.getpid()


@every_process
def test_a_worker_ends_as_an_interpreter_ends(kind, tmp_path):
    """The fixture around this test looks for processes that are left."""
    ways = [(way, str(tmp_path / way.__name__)) for way in WAYS]
    with ParallelStreamer(Streamer(leaving, ways), **kind) as stream:
        list(stream)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}  # a folder would be an error
    assert found == {way.__name__: "end\n" for way in WAYS}


DOUBLE = "import subprocess, sys; print(subprocess.Popen(['sleep', '1000'], stdout=2).pid)"
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
)


def starting():
    """Start processes: a plain one, one that is no child of the worker, and one that ignores SIGTERM."""
    plain = subprocess.Popen(["sleep", "1000"])
    orphan = int(subprocess.check_output([sys.executable, "-c", DOUBLE], stderr=subprocess.DEVNULL))
    deaf = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    deaf.stdout.readline()
    yield [plain.pid, orphan, deaf.pid]
    yield os.getpid()
    threading.Event().wait()


@every_process
@pytest.mark.parametrize("is_blocked", [False, True])
def test_what_a_generator_started_ends_with_its_worker(kind, is_blocked):
    with ParallelStreamer(Streamer(starting), prefetch=2 if is_blocked else 1, timeout=0.2, **kind) as stream:
        items = iter(stream)
        gone = Gone(next(items))
        if is_blocked:
            next(items)
    assert not gone.wait(PATIENCE)


@process_backends
def test_what_a_generator_started_ends_with_its_worker_when_that_is_killed(backend):
    with ParallelStreamer(Streamer(starting), backend) as stream:
        items = iter(stream)
        gone = Gone(next(items))
        os.kill(worker_pid(stream), signal.SIGKILL)
        assert not gone.wait(PATIENCE)


CHILDREN = """
import subprocess
def parent():
    plain = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    yield plain.pid
    time.sleep(1000)

for pid in ParallelStreamer(Streamer(parent), **options):
    say(str(pid))
"""


@every_process
def test_what_a_generator_started_ends_with_its_consumer_when_that_is_killed(kind, tmp_path):
    with run(tmp_path, kind, CHILDREN) as script:
        gone = Gone([int(script.process.stdout.readline())])
        script.kill()
        assert not gone.wait(2)


EXIT_FUNCTIONS_OF_THE_CONSUMER = """
import atexit, multiprocessing.util, tempfile, weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
folder = tempfile.TemporaryDirectory()
atexit.register(print, "atexit")
threading._register_atexit(print, "threading")
multiprocessing.util.Finalize(None, print, args=["multiprocessing"], exitpriority=1)
weakref.finalize(folder, print, "weakref")
executors = [ThreadPoolExecutor(1), ProcessPoolExecutor(1)]
for executor in executors:
    executor.submit(abs, -1).result()

def left():
    kept = ThreadPoolExecutor(1)
    kept.submit(abs, -1).result()
    weakref.finalize(sys, print, "worker", flush=True)
    yield 1

print("not printed twice", end=" ")
with ParallelStreamer(Streamer(left), **options) as stream:
    list(stream)
assert os.path.isdir(folder.name)
assert all(executor.submit(abs, -1).result() == 1 for executor in executors)
print("consumer", flush=True)
"""


@process_backends
def test_a_forked_worker_runs_its_own_exit_functions_alone(backend, tmp_path):
    with run(
        tmp_path, {"backend": backend, "start_method": "fork"}, EXIT_FUNCTIONS_OF_THE_CONSUMER
    ) as script:
        code, output, _ = script.finish()  # Python may warn of forking where threads run
    assert code == 0
    lines = output.replace("not printed twice ", "not printed twice\n").splitlines()
    assert lines[:3] == ["not printed twice", "worker", "consumer"]
    assert set(lines[3:]) == {"atexit", "multiprocessing", "threading", "weakref"}


def attached(name):
    memory = shared_memory.SharedMemory(name)
    yield int(memory.buf[0])
    memory.close()


def created():
    memory = shared_memory.SharedMemory(f"test-{os.getpid()}", create=True, size=8)
    yield memory.name
    memory.close()
    memory.unlink()
    resource_tracker.ensure_running()  # as for locks


@every_process
def test_shared_memory_of_others_outlives_a_worker_that_used_it(kind):
    memory = shared_memory.SharedMemory(f"test-{os.getpid()}", create=True, size=8)
    try:
        memory.buf[0] = 7
        for _ in range(2):
            with ParallelStreamer(
                RoundRobinMux([Streamer(attached, memory.name)] * 2), n_workers=2, **kind
            ) as p:
                assert list(p) == [7, 7]
    finally:
        memory.close()
        memory.unlink()


@every_process
def test_a_generator_may_make_shared_memory_and_have_a_resource_tracker(kind, capfd):
    with ParallelStreamer(Streamer(created), **kind) as stream:
        (name,) = stream
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name)
    assert capfd.readouterr().err == ""
