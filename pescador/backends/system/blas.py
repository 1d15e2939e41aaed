"""How many threads the numeric libraries of a worker use: BLAS, OpenMP, and what is built on them.

Each of them uses all cores, in every process. Where several workers do so at once, they spend most of their
time waiting for each other. So each worker gets its share of the cores. Libraries read it from environment
variables when they are imported; those that a process has already are told by a function of theirs.

A variable that the user has set stands. What a worker was *given* by its consumer is not the user's: the
workers that it starts itself divide that again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

__all__ = ["Library", "Threads", "environment", "give", "loaded", "variables"]

Threads = int | Literal["auto"] | None
"""So many threads, as many as are a worker's share of the cores ('auto'), or as many as they like (None)."""

# Most libraries obey the first one where theirs is not set.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# Where a container finds how much of the processors it may use: in one file, or two (version 1 of cgroups).
CGROUP = "/sys/fs/cgroup"
QUOTAS = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")

# What consumers of this process, if it is a worker, have set.
_given: dict[str, str] = {}


def give(given: dict[str, str]) -> None:
    """Take note of the variables that the consumer of this worker has set, in place of those before."""
    global _given
    _given = given


def environment() -> dict[str, str]:
    """Return the environment of this process, without what it was given."""
    found = dict(os.environ)
    for name, value in _given.items():
        if found.get(name) == value:
            del found[name]
    return found


def variables(threads: Threads, n_workers: int) -> dict[str, str]:
    """Return the variables that each of so many workers is given."""
    if threads is None:
        return dict(_given)
    if threads != "auto":
        return dict.fromkeys(VARIABLES, str(threads))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, min(cores, _quota(), *map(int, _given.values())) // n_workers)
    ours = [name for name in VARIABLES if os.environ.get(name) in (None, "", _given.get(name))]
    if share == cores or "OMP_NUM_THREADS" not in ours:
        return {}
    return dict.fromkeys(ours, str(share))


@functools.cache
def _quota() -> int:
    """Return how many cores the container of this process may keep busy."""
    for names in QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says 'max'
            quota, period = (int(word) for name in names for word in _words(f"{CGROUP}/{name}"))
            if quota > 0:
                return math.ceil(quota / period)
    return sys.maxsize


def _words(path: str) -> list[str]:
    with open(path) as file:
        return file.read().split()


# What is loaded

_LIBRARY = re.compile(r"/[^/]*(?:blas|mkl_rt|blis|omp)[^/]*\.so[^/]*$")

_FUNCTIONS = [
    ("OMP_NUM_THREADS", "omp_get_max_threads", "omp_set_num_threads"),
    ("MKL_NUM_THREADS", "MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("BLIS_NUM_THREADS", "bli_thread_get_num_threads", "bli_thread_set_num_threads"),
    *(
        ("OPENBLAS_NUM_THREADS", *(f"{head}openblas_{verb}_num_threads{tail}" for verb in ("get", "set")))
        for head in ("", "scipy_")
        for tail in ("", "64_", "_64")
    ),
]


class Library:
    """A library that this process has loaded, and how many threads it uses."""

    def __init__(self, variable: str, get: Callable[[], int], change: Callable[[int], object]) -> None:
        self._variable = variable
        self._get = get
        self._change = change
        self._initial = get()

    def obey(self, given: Mapping[str, str]) -> None:
        """Have it use as many threads as these variables say, or else as many as in the beginning.

        Where that is what it does, it is not touched: OpenBLAS has no threads after a fork, and would start
        them now, each of which waits busily for a tenth of a second.
        """
        n_threads = int(given.get(self._variable, self._initial))
        if self._get() != n_threads:
            self._change(n_threads)


def loaded() -> list[Library]:
    """Return the libraries that this process has loaded and that can be told; outside Linux, only PyTorch."""
    paths: set[str] = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", errors="surrogateescape") as file:
        paths.update(line[line.index("/") :].rstrip("\n") for line in file if _LIBRARY.search(line))
    found: list[Library] = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):  # it was deleted
            library: Any = ctypes.CDLL(path)  # which is the one that is there
            for variable, get, change in _FUNCTIONS:
                with contextlib.suppress(AttributeError):  # it has no such functions
                    found.append(Library(variable, getattr(library, get), getattr(library, change)))
    torch: Any = sys.modules.get("torch")
    with contextlib.suppress(AttributeError):  # it is not there, or being imported
        found.append(Library("OMP_NUM_THREADS", torch.get_num_threads, torch.set_num_threads))
    return found
