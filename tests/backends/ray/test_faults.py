"""What a stream on Ray raises when its worker, its node or the runtime goes, or a worker cannot start."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from pescador import ParallelStreamer, PescadorError, RoundRobinMux, Streamer, WorkerError
from pescador.testing.sources import blocked

from ...kinds import Gone, Script
from .conftest import STORE_BYTES

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'pescador[ray]'")


def ones(n, size):
    for _ in range(n):
        yield {"x": np.ones(size, np.uint8)}


def kill_a_worker(stream):
    (worker,) = stream.stats()["workers"]
    os.kill(worker["pid"], signal.SIGKILL)


def test_the_death_of_a_worker_is_heard_at_once_and_says_where_it_was():
    with ParallelStreamer(Streamer(blocked, os.getpid()), "ray") as stream:
        items = iter(stream)
        next(items)
        (worker,) = stream.stats()["workers"]
        kill_a_worker(stream)
        started = time.monotonic()
        with pytest.raises(WorkerError) as caught:
            next(items)
        assert time.monotonic() - started < 3  # one second where nothing else runs
    text = str(caught.value)
    assert f"worker process {worker['pid']} on host {worker['host']} (node " in text
    assert "has ended" in text
    assert "It was running Streamer(blocked" in text


@pytest.mark.parametrize("gracefully", [True, False])
def test_the_end_of_a_node_is_heard(cluster, gracefully):
    node = cluster.add_node(num_cpus=1, resources={"extra": 1}, object_store_memory=STORE_BYTES)
    try:
        source = Streamer(blocked, os.getpid())
        with ParallelStreamer(source, "ray", resources={"extra": 1}, timeout=1) as stream:
            items = iter(stream)
            next(items)
            cluster.remove_node(node, allow_graceful=gracefully)
            node = None
            started = time.monotonic()
            with pytest.raises(WorkerError, match="on host"):
                next(items)
            assert time.monotonic() - started < 20
    finally:
        if node is not None:
            cluster.remove_node(node)


def test_what_cannot_be_scheduled_says_what_was_asked_and_what_is_free():
    options = {"resources": {"unobtainium": 1.0}, "start_timeout": 1}
    with (
        pytest.raises(PescadorError, match=r"in 1 s.*unobtainium.*free are .* CPU, 0 of 0 unobtainium"),
        ParallelStreamer(Streamer(ones, 1, 1), "ray", **options) as stream,
    ):
        next(iter(stream))


def test_what_cannot_be_imported_names_runtime_env():
    def on_worker():
        import no_such_module  # type: ignore[import-not-found]

        yield no_such_module

    with (
        pytest.raises(ModuleNotFoundError, match="no_such_module"),
        ParallelStreamer(Streamer(on_worker), "ray") as stream,
    ):
        next(iter(stream))
    from pescador.backends.ray.causes import why_not_started

    error = RuntimeError("The actor failed to import: ModuleNotFoundError: No module named 'pescador'")
    assert "'pescador' cannot be imported on its node" in why_not_started(error)
    assert "runtime_env=" in why_not_started(error)


def test_a_worker_that_stalls_is_ended_and_says_where_it_was():
    with ParallelStreamer(Streamer(blocked, os.getpid()), "ray", stall_timeout=1) as stream:
        items = iter(stream)
        next(items)
        with pytest.raises(WorkerError, match=r"delivered nothing for 1\.\d s .*Its stack:\n") as caught:
            next(items)
        assert " in blocked\n" in str(caught.value)
        assert next(iter(stream)) == 0


def test_large_items_do_not_spill(cluster):
    with ParallelStreamer(RoundRobinMux([Streamer(ones, 12, 1 << 26)]), "ray", n_workers=2) as stream:
        for item in stream:
            assert item["x"].nbytes == 1 << 26
    logs = list(Path(cluster.head_node.get_session_dir_path(), "logs").glob("raylet*.out"))
    assert logs
    assert not [log for log in logs if "Spilled" in log.read_text()]


def test_a_pool_may_be_opened_in_a_task_of_ray():
    @ray.remote(num_cpus=1)
    def task():
        with ParallelStreamer(Streamer(range, 5), "ray") as stream:
            return list(stream)

    assert ray.get(task.remote()) == [0, 1, 2, 3, 4]


LOCAL = """
import os, sys
import numpy as np
import pescador
assert "ray" not in sys.modules

def source(n, table):
    for i in range(n):
        yield dict(i=i, x=table[:3])

stream = pescador.ParallelStreamer(pescador.Streamer(source, 10**6, np.arange(10**5)), "ray", address="local")
items = iter(stream)
print(next(items)["i"], flush=True)
"""


def script(folder, text):
    folder.joinpath("home").mkdir()
    return Script(folder, f"import os\nos.environ['HOME'] = {str(folder / 'home')!r}\n{LOCAL}{text}")


def test_a_local_runtime_is_quiet_and_leaves_nothing(tmp_path):
    with script(tmp_path, "input()") as running:
        running.wait_for("0")
        offspring = running.offspring()
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        assert running.finish() == (0, "", "")
        assert not offspring.wait(20)
    assert list((tmp_path / "home").iterdir()) == []


def test_nothing_is_left_of_a_consumer_that_was_killed(tmp_path):
    with script(tmp_path, "input()") as running:
        running.wait_for("0")
        # Two agents of a local runtime are left to Ray, which was seen to leave them alone for minutes.
        children = psutil.Process(running.process.pid).children(recursive=True)
        gone = Gone(child.pid for child in children if "Agent" not in child.cmdline()[0])
        running.kill()
        assert not gone.wait(30)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def test_a_runtime_that_ends_under_an_open_stream_raises(tmp_path):
    text = """
import ray
ray.shutdown()
try:
    for item in items:
        pass
except pescador.PescadorError as error:
    print("raised", flush=True)
stream.close()
"""
    with script(tmp_path, text) as running:
        running.wait_for("0")
        code, output, _ = running.finish()
        assert (code, output) == (0, "raised\n")


def test_without_a_runtime_the_error_says_what_to_do(tmp_path):
    text = """
import pescador
try:
    list(pescador.ParallelStreamer("abc", "ray"))
except pescador.PescadorError as error:
    print(error)
"""
    with Script(tmp_path, f"import os\nos.environ.pop('RAY_ADDRESS', None)\n{text}") as running:
        code, output, errors = running.finish()
    assert (code, errors) == (0, "")
    assert "address='local'" in output
