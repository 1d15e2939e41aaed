"""What the system has no more of: a clear error, the items before it, no crash, and nothing left behind.

Each case runs in a process of its own, with limits of its own, and so does each limit of a case. Those are
forked from one interpreter that has imported everything, and started nothing.
"""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from ..kinds import PATIENCE, PROCESSES, ROOT, every_process, process_backends
from ..worlds import every_group, made_up_group, real_group

PRELUDE = """
import gc, os, resource, sys
import numpy as np
import psutil
from pescador import ParallelStreamer, PescadorError, Streamer
from pescador.backends.processes.forkserver import Forkserver

kind = eval(sys.argv[1])
for limit in map(int, sys.argv[2:]):
    pid = os.fork()
    if not pid:
        break
    status = os.waitpid(pid, 0)[1]
    if status:
        sys.exit(f"it failed where the limit is {limit}: {os.waitstatus_to_exitcode(status)}")
    print("process", pid, flush=True)
else:
    sys.exit()

def arrays(sizes):
    for i, size in enumerate(sizes):
        yield {"x": np.full(size, i, np.uint8)}

def told(error):
    print(" ".join(str(error).split()))

def take(items, n_expected, n=0):
    "Print how many items come, if n were taken already, and the error that ends them."
    try:
        for item in items:
            assert (item["x"] == n).all()
            n += 1
    except PescadorError as error:
        told(error)
    else:
        assert n == n_expected
    print(n)
"""

CLEAN = """
item = items = first = None
gc.collect()
kept = [] if Forkserver.current is None else [Forkserver.current.pid]
assert {child.pid for child in psutil.Process().children(recursive=True)} <= {*kept}
assert "memfd:pescador" not in open("/proc/self/maps").read()
print("clean")
"""


def command(text, kind, *limits):
    return [sys.executable, "-c", PRELUDE + text + CLEAN, repr(kind), *map(str, limits)]


def run(command):
    """Run a command with one limit; return what it prints, and how many items came."""
    (result,) = run_each(command)
    return result


def run_each(command):
    """Run a command; return for each limit what it prints, and how many items came."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",  # its threads, and their memory, would count too
    }
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, (process.returncode, output, errors)
    *outputs, rest = re.split(r"process (\d+)\n", output)
    assert rest == ""
    results = []
    for lines in outputs[::2]:
        *error, n_items, clean = lines.splitlines()
        assert clean == "clean"
        results.append((error, int(n_items)))
    return results


# Descriptors

DESCRIPTORS = """
import psutil  # what it opens is open
psutil.Process().num_fds()
# The same in this process whatever the start method is, and this one starts no interpreter.
with ParallelStreamer(Streamer(arrays, [100]), **{**kind, "start_method": "fork"}) as stream:
    list(stream)
del stream
gc.collect()
n = psutil.Process().num_fds()
resource.setrlimit(resource.RLIMIT_NOFILE, (n + limit, n + limit))
items = []
try:
    with ParallelStreamer(Streamer(arrays, [100_000] * 20), **kind) as items:
        take(items, 20)
except PescadorError as error:
    told(error)
    print(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (n + limit, n + limit))
"""


@every_process
def test_few_descriptors_are_an_error_or_enough(kind):
    """However few there are: at some number it is the consumer that runs out, at some the worker."""
    was_enough = False
    limits = (0, 2, 4, 6, 9, 12, 16, 19, 22, 40)
    for limit, (error, n_items) in zip(limits, run_each(command(DESCRIPTORS, kind, *limits)), strict=True):
        if error:
            assert "ulimit -n" in error[0] or "Too many open files" in error[0], error
            assert n_items == 0
        was_enough = not error
        assert was_enough or limit < 40
    assert was_enough


DESCRIPTORS_LATER = """
with ParallelStreamer(Streamer(arrays, [100_000] * 4 + [50_000_000] * 4), prefetch=2, **kind) as stream:
    items = iter(stream)
    first = next(items)
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    take(items, 8, 1)
    for descriptor in opened:
        os.close(descriptor)
"""


def test_a_segment_that_the_consumer_has_no_descriptor_for_is_an_error():
    kind = {"backend": "shm", "ring_bytes": 1 << 20}
    error, n_items = run([*prlimit("--nofile=100"), *command(DESCRIPTORS_LATER, kind, 0)])
    assert "too many files are open" in error[0]
    assert "ulimit -n" in error[0]
    assert n_items == 4


def prlimit(*limits):
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit")
    return ["prlimit", *limits]


# Processes and threads

PROCESS_LIMIT = """
limit += 1  # for the process that forked this one
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
items = []
try:
    with ParallelStreamer(Streamer(arrays, [100_000] * 20), **kind) as items:
        take(items, 20)
except PescadorError as error:
    told(error)
    print(0)
"""


def as_another_user():
    """Return a command to run another as a user who has no processes, but may read what this one may."""
    if os.getuid():
        return []  # there are more processes than all limits of these tests: they are the lowest one
    if shutil.which("setpriv") is None:
        pytest.skip("the limit of processes does not hold for root, and there is no setpriv")
    uid = str(50_000 + os.getpid() % 10_000)
    capabilities = "-all,+dac_read_search"
    command = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]
    command += ["--inh-caps", capabilities, "--ambient-caps", capabilities]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("the limit of processes does not hold for root, who may not become another user here")
    return command


KINDS = {"thread": {"backend": "thread"}, **PROCESSES}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_few_processes_are_an_error_or_enough(kind):
    user = as_another_user()
    limits = (1, 2, 3, 5, 9, 30) if user else (1,)
    results = run_each([*user, *command(PROCESS_LIMIT, kind, *limits)])
    for limit, (error, n_items) in zip(limits, results, strict=True):
        if error:
            assert "ulimit -u" in error[0] or "want of descriptors, threads or memory" in error[0], error
            assert n_items == 0
        assert bool(error) or limit > 1
        assert not error or limit < 30


# Memory

MEMORY = """
with ParallelStreamer(Streamer(arrays, [100_000] * 4 + [limit] * 2), **kind) as stream:
    items = iter(stream)
    n = 0
    try:
        for item in items:
            if not n:
                used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
            assert (item["x"] == n).all()
            n += 1
    except (PescadorError, MemoryError) as error:
        told(type(error).__name__ + ": " + str(error))
    print(n)
"""


@every_process
def test_an_item_for_which_the_consumer_has_no_memory_is_an_error_after_those_before_it(kind):
    error, n_items = run(command(MEMORY, kind, 400 << 20))
    assert "emory" in error[0]
    assert n_items == 4


MEMORY_AT_START = """
from pescador import backends
backends.get(kind["backend"])  # to import modules is another matter, in which Python itself fails as it likes
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + (limit << 20), hard))
items = []
try:
    with ParallelStreamer(Streamer(arrays, [100_000] * 20), **kind) as items:
        take(items, 20)
except (PescadorError, MemoryError) as error:
    told(error)
    print(0)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))  # to look for what is left takes some, too
"""


@every_process
def test_little_memory_at_the_start_is_an_error_or_enough(kind):
    limits = (1, 10, 30, 1200)
    for limit, (error, n_items) in zip(
        limits, run_each(command(MEMORY_AT_START, kind, *limits)), strict=True
    ):
        assert n_items == (0 if error else 20), error
        assert not error or limit < 1200, error


# Memory of a container

AT_THE_START = """
leave(limit)
items = ParallelStreamer(Streamer(arrays, [100_000] * 20), **kind)
take(items, 20)
leave(512 << 20)
take(items, 20)  # there is room again, and the same streamer works
items.close()
"""

# What is huge takes no memory here, because nobody writes to it: only its copy would.
AT_AN_OVERSIZE_ITEM = """
def arrays_and_a_huge_one():
    yield from arrays([100_000] * 20)
    yield {"x": np.zeros(200 << 20, np.uint8)}
    yield from arrays([100_000])

leave(limit)
items = ParallelStreamer(Streamer(arrays_and_a_huge_one), **kind)
take(items, 22)
items.close()
"""

AT_A_WARM_RESTART = """
leave(512 << 20)
items = ParallelStreamer(Streamer(arrays, [100_000] * 20), **kind)
take(items, 20)
leave(limit)
take(items, 20)  # the worker has its ring
another = ParallelStreamer(Streamer(arrays, [100_000] * 20), **kind)
take(another, 20)  # it would need its own
items.close()
another.close()
del another
"""

FOR_A_RECIPE = """
def sizes(huge):
    yield {"x": np.zeros(1 + huge[-1], np.uint8)}

leave(limit)
huge = np.zeros(200 << 20, np.uint8)
items = ParallelStreamer(Streamer(sizes, huge), **kind)
take(items, 1)
leave(512 << 20)
take(items, 1)
items.close()
"""

SEVERAL_AT_ONCE = """
from pescador import RoundRobinMux

def one(i):
    yield {"x": np.full(100_000, i, np.uint8)}

mux = RoundRobinMux([Streamer(one, i) for i in range(4)])
leave(limit)
items = ParallelStreamer(mux, n_workers=4, **kind)
take(items, 4)
leave(1 << 30)
take(items, 4)
items.close()
"""

by_default = {"backend": "shm", "ring_bytes": None}
fixed = {"backend": "shm", "ring_bytes": 1 << 20}
too_large = {"backend": "shm", "ring_bytes": 200 << 20}
ENOUGH = 100 << 20  # for processes themselves, and some items


def run_in(group, text, kind, limit):
    """Run a script in a group that leaves so much memory; return the lines that it prints."""
    with group() as group:
        error, n_items = run([*group.command, *command(group.leave + text, kind, limit)])
    return [*error, n_items]


def is_clear(error, option="ring_bytes"):
    parts = ("there is not enough memory", "were asked for", "are free of the", "(control group /", option)
    return all(part in error for part in parts)


@pytest.mark.parametrize("kind", [by_default, fixed], ids=["default", "fixed"])
@pytest.mark.parametrize("free", [0, 200_000], ids="{} bytes free".format)
def test_next_to_no_memory_at_the_start(free, kind):
    """Where the size of the ring is left to pescador, what little there is may be enough for some items."""
    *first, again = run_in(made_up_group, AT_THE_START, kind, free)
    if free and kind is by_default:
        assert first == ["20"]
    else:
        error, n_items = first
        assert is_clear(error)
        assert n_items == "0"
    assert again == 20


@every_group
def test_too_little_memory_for_a_ring_at_the_start(group):
    error, n_items, again = run_in(group, AT_THE_START, too_large, ENOUGH)
    assert is_clear(error)
    assert "209,715,200" in error
    assert (n_items, again) == ("0", 20)


def test_several_rings_of_which_only_some_find_memory_end_no_process():
    """They are made at the same time, and each alone would find enough."""
    kind = {"backend": "shm", "ring_bytes": 90 << 20}
    error, _, again = run_in(real_group, SEVERAL_AT_ONCE, kind, 200 << 20)
    assert is_clear(error)
    assert again == 4


@every_group
def test_a_ring_whose_size_is_left_to_pescador_takes_what_there_is(group):
    assert run_in(group, AT_THE_START, by_default, ENOUGH) == ["20", 20]


@every_group
@pytest.mark.parametrize("kind", [by_default, fixed], ids=["default", "fixed"])
def test_too_little_memory_for_an_oversize_item_is_an_error_after_those_before_it(group, kind):
    error, n_items = run_in(group, AT_AN_OVERSIZE_ITEM, kind, ENOUGH)
    assert is_clear(error)
    assert "209,715,200" in error
    assert n_items == 20


@pytest.mark.parametrize("kind", [by_default, fixed], ids=["default", "fixed"])
def test_no_memory_at_a_warm_restart(kind):
    first, again, error, n_items = run_in(made_up_group, AT_A_WARM_RESTART, kind, 0)
    assert (first, again, n_items) == ("20", "20", 0)
    assert is_clear(error)


@every_group
def test_too_little_memory_at_a_warm_restart(group):
    first, again, error, n_items = run_in(group, AT_A_WARM_RESTART, too_large, ENOUGH)
    assert (first, again, n_items) == ("20", "20", 0)
    assert is_clear(error)


@every_group
@process_backends
def test_too_little_memory_for_a_recipe(group, backend):
    error, n_items, again = run_in(group, FOR_A_RECIPE, {"backend": backend}, ENOUGH)
    assert is_clear(error, "It is for a recipe")
    assert "209,715,200" in error
    assert "backend='thread'" in error
    assert (n_items, again) == ("0", 1)
