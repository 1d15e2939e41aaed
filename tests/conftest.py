"""What holds around every test: it leaves nothing behind, it ends, and it starts from the same state."""

import contextlib
import faulthandler
import gc
import os
import random
import re
import sys
import threading
import time
from multiprocessing import resource_tracker

import numpy as np
import psutil
import pytest
from hypothesis import settings

from pescador.backends.processes.forkserver import Forkserver

# Seconds. A machine was seen on which some tests took 20 times as long as on others.
TIMEOUT = 300.0 + int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))
GRACE = 2.0  # seconds in which what a test ended may be gone, for a process exits when it likes

os.environ.setdefault(
    "KERAS_BACKEND", "torch"
)  # the default is TensorFlow, which is not installed everywhere

settings.register_profile("pescador", database=None, deadline=None, derandomize=True)
settings.load_profile("pescador")

collect_ignore = ["hosts", "macos", "windows"]  # no tests: to import macos would make this system another one

stderr_key = pytest.StashKey[int]()


def pytest_configure(config):
    config.stash[stderr_key] = os.dup(sys.__stderr__.fileno())  # that of the terminal, not a test's
    if os.name == "posix":
        resource_tracker.ensure_running()  # one for all, kept by the interpreter until it exits


def pytest_unconfigure(config):
    os.close(config.stash[stderr_key])


@pytest.fixture(autouse=True)
def hang_fails(pytestconfig):
    faulthandler.dump_traceback_later(TIMEOUT, exit=True, file=pytestconfig.stash[stderr_key])
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def global_random_state_restored():
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 -- this is about it
    yield
    random.setstate(state)
    np.random.set_state(numpy_state)  # noqa: NPY002 -- as above


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = resources()
    yield
    left = resources() - before
    if left:
        gc.collect()
        give_up = time.monotonic() + GRACE
        while (left := resources() - before) and time.monotonic() < give_up:
            time.sleep(0.01)
    assert not left, f"left behind: {sorted(left)}"


def resources():
    """Return a set of texts: all processes, threads, file descriptors and names of shared memory.

    The process from which workers are forked is left out, for it stays until this one ends.

    Our shared memory has no name. It is among the descriptors, also where it is only mapped: each mapping of
    Python keeps one of its own.
    """
    children = psutil.Process().children(recursive=True)
    found = {f"process {child.pid}" for child in children}
    found |= {f"thread {thread}" for thread in threading.enumerate()}
    found |= {f"file descriptor {fd}: {target}" for fd, target in descriptors()}
    found -= of_forkserver()
    own = {os.getpid(), *(child.pid for child in children)}
    return found | {
        f"shared memory {name}" for name in names_of_shared_memory() if not belongs_to_others(name, own)
    }


def of_forkserver():
    """Return the texts of the process from which workers are forked, if it runs, and of what it needs."""
    forkserver = Forkserver.current
    if forkserver is None or not forkserver.is_alive():
        return set()
    needed = {forkserver._connection.socket.fileno(), forkserver._process.pidfd}
    return {f"process {forkserver.pid}"} | {
        f"file descriptor {fd}: {target}" for fd, target in descriptors() if int(fd) in needed
    }


def descriptors():
    if os.path.isdir("/proc/self/fd"):
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of listdir
                yield fd, os.readlink(f"/proc/self/fd/{fd}")


def names_of_shared_memory():
    return os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []


def belongs_to_others(name, own):
    """Whether the first number in a name is the pid of a living process that is not ours."""
    pid = int((re.search(r"\d{1,9}", name) or ["0"])[0])
    return pid not in own and psutil.pid_exists(pid)
