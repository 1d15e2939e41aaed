"""How many threads libraries are to use, and telling those that are loaded."""

import os

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pescador.backends.system import blas

OTHERS = blas.VARIABLES[1:]


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """Have eight cores, no variables, and no container."""
    for name in blas.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(blas, "_given", {})
    monkeypatch.setattr(blas, "_quota", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def all_are(number):
    return dict.fromkeys(blas.VARIABLES, str(number))


@pytest.mark.parametrize(("n_workers", "share"), [(2, 4), (3, 2), (5, 1), (8, 1), (100, 1)])
def test_each_worker_gets_its_share_of_the_cores(n_workers, share):
    assert blas.variables("auto", n_workers) == all_are(share)


def test_whoever_has_all_cores_is_told_nothing():
    """To say so would change something: a library may use one thread for two cores of the same kind."""
    assert blas.variables("auto", 1) == {}


def test_a_number_is_that_of_each_worker():
    assert blas.variables(3, 1) == blas.variables(3, 100) == all_are(3)


def test_none_tells_nothing():
    assert blas.variables(None, 8) == {}


def test_what_the_user_has_set_stands(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.setenv("BLIS_NUM_THREADS", "")
    expected = all_are(4)
    del expected["MKL_NUM_THREADS"]
    assert blas.variables("auto", 2) == expected
    assert blas.variables(3, 2) == all_are(3)  # but not against what the program says
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # which is for all
    assert blas.variables("auto", 2) == {}


def test_workers_of_a_worker_divide_what_it_was_given(monkeypatch):
    blas.give(all_are(4))
    for name, number in {**all_are(4), "MKL_NUM_THREADS": "7"}.items():  # the last one is its generator's
        monkeypatch.setenv(name, number)
    expected = all_are(2)
    del expected["MKL_NUM_THREADS"]
    assert blas.variables("auto", 2) == expected
    assert blas.variables("auto", 1) == {**expected, **dict.fromkeys(expected, "4")}
    assert blas.variables(None, 2) == all_are(4)
    assert not {*blas.VARIABLES} - {"MKL_NUM_THREADS"} & {*blas.environment()}
    assert blas.environment()["MKL_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_container_may_have_less_than_the_machine(files, cores, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(blas, "CGROUP", str(tmp_path))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = blas._quota.__wrapped__()
    assert found == cores if cores else found > 10**6


def numbers():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_library_that_is_loaded_uses_as_many_threads_as_it_is_told():
    with threadpool_limits(2):
        libraries = blas.loaded()
        for number in (1, 3):
            for library in libraries:
                library.obey(all_are(number))
            assert {*numbers().values()} == {number}
            assert (np.ones((300, 300)) @ np.ones((300, 300)) == 300).all()
        for library in libraries:
            library.obey({})
        assert {*numbers().values()} == {2}
