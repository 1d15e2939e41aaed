"""How many threads the numeric libraries of a worker use."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from threadpoolctl import threadpool_info

from pescador import ParallelStreamer, RoundRobinMux, Streamer
from pescador.backends.system import blas
from pescador.exceptions import ParameterError

from ...kinds import START_METHODS, every_process, process_backends

BY_ITSELF = (
    "from threadpoolctl import threadpool_info; import numpy; print(threadpool_info()[0]['num_threads'])"
)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch, own_forkserver):
    """Have two cores, no variables, and a forkserver that was started with none."""
    for name in blas.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(blas, "_quota", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


@pytest.fixture
def by_itself(two_cores):
    """Return how many threads NumPy's BLAS uses in a process to which nobody said anything."""
    return int(subprocess.check_output([sys.executable, "-c", BY_ITSELF], text=True))


def seen():
    """Yield what bounds threads in this process, and what comes of it."""
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    yield {
        "variables": {name: os.environ[name] for name in blas.VARIABLES if name in os.environ},
        "threads": {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"},
        "of a program": subprocess.check_output([sys.executable, "-c", code], text=True).strip(),
        "parent": os.getppid(),
    }


def two(**options):
    return ParallelStreamer(RoundRobinMux([Streamer(seen)] * 2), n_workers=2, **options)


def look(stream):
    """Return what a worker sees, which all of them do."""
    one, other = stream
    assert one == other
    return one


def all_are(number):
    return dict.fromkeys(blas.VARIABLES, str(number))


@every_process
def test_two_workers_share_the_cores(kind):
    with two(**kind) as stream:
        for _ in range(2):  # the second opening does not undo it
            found = look(stream)
            assert found["variables"] == all_are(1)
            assert found["threads"] == {1}
            assert found["of a program"] == "1"
    assert not {*blas.VARIABLES} & {*os.environ}


@every_process
def test_none_leaves_all_as_it_is(kind, by_itself):
    with two(**kind, blas_threads=None) as stream:
        found = look(stream)
    assert found["variables"] == {}
    if kind["start_method"] != "fork":  # NumPy is the one of this process
        assert found["threads"] == {by_itself}


@every_process
def test_what_the_user_has_set_stands(kind, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with two(**kind) as stream:
        found = look(stream)
        assert found["variables"] == {**all_are(1), "OPENBLAS_NUM_THREADS": "2"}
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        given = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}
        assert look(stream)["variables"] == given
    with two(**kind) as stream:
        assert look(stream)["variables"] == given
    with two(**kind, blas_threads=1) as stream:
        found = look(stream)
        assert found["variables"] == all_are(1)
        assert found["threads"] == {1}


def pytorch():
    import torch

    yield torch.get_num_threads()


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("start_method", START_METHODS)
def test_pytorch_is_told_too(start_method):
    with ParallelStreamer(Streamer(pytorch), start_method=start_method, blas_threads=1) as stream:
        assert list(stream) == [1]


@process_backends
def test_pools_of_one_forkserver_may_differ(backend, by_itself):
    with (
        two(backend=backend, blas_threads=1) as first,
        two(backend=backend, blas_threads=3) as second,
        two(backend=backend, blas_threads=None) as third,
        two(backend=backend) as fourth,
    ):
        found = [look(stream) for stream in (first, second, third, fourth, second, first)]
    assert [worker["threads"] for worker in found] == [{1}, {3}, {by_itself}, {1}, {3}, {1}]
    assert len({worker["parent"] for worker in found}) == 1


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is nothing to divide")
@every_process
def test_workers_of_a_worker_divide_what_it_has(kind):
    nested = ParallelStreamer(RoundRobinMux([Streamer(seen)] * 2), n_workers=2, **kind)
    with ParallelStreamer(nested, blas_threads=2, **kind) as stream:
        found = look(stream)
        assert found["threads"] == {1}
        assert found["variables"] == all_are(1)


@process_backends
@pytest.mark.parametrize("number", [0, -1, 2.5, "2", "all", True, [2]])
def test_a_number_that_makes_no_sense_is_refused_at_once(backend, number):
    with pytest.raises(ParameterError, match="blas_threads must be 'auto', None or a whole number from 1 on"):
        ParallelStreamer([], backend, blas_threads=number)
