"""However the consumer ends, nothing of it stays, and scripts need no guard: in processes of their own."""

import signal

import pytest

from ..kinds import (
    START_METHODS,
    Script,
    every_process,
    process_backends,
    segments_of,
)

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from pescador import ParallelStreamer, Streamer

options = {options!r}

# Where the tests run in the background of a shell, Ctrl-C is ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

def endless():
    while True:
        yield dict(x=np.zeros(20_000))

def blocked():
    yield 0
    time.sleep(1000)

def say(text):
    print(text, flush=True)
"""


def run(folder, kind, text):
    return Script(folder, PRELUDE.format(options=kind) + text)


ENDS = {
    "interrupted": """
items = iter(ParallelStreamer(Streamer({source}), timeout=0.1, **options))
next(items)
say("ready")
for item in items:
    pass
""",
    "sys.exit": """
for item in ParallelStreamer(Streamer({source}), timeout=0.1, **options):
    say("ready")
    sys.stdin.readline()
    sys.exit(3)
""",
    "open": """
stream = ParallelStreamer(Streamer({source}), timeout=0.1, **options)
items = iter(stream)
next(items)
say("ready")
sys.stdin.readline()
""",
    "nested": """
stream = ParallelStreamer(ParallelStreamer(Streamer({source}), timeout=0.1), timeout=1, **options)
items = iter(stream)
next(items)
say("ready")
sys.stdin.readline()
""",
}


@every_process
@pytest.mark.parametrize(
    ("way", "source", "code"),
    [
        ("interrupted", "endless", -2),
        ("interrupted", "blocked", -2),
        ("sys.exit", "endless", 3),
        ("open", "endless", 0),
        ("open", "blocked", 0),
        ("nested", "blocked", 0),
    ],
)
def test_an_interpreter_that_ends_takes_its_workers_along(kind, way, source, code, tmp_path):
    with run(tmp_path, kind, ENDS[way].format(source=source)) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        pids = [script.process.pid, *offspring.fds.values()]
        if way == "interrupted":
            script.signal_group(signal.SIGINT)
        returned, output, errors = script.finish()
        # A nested worker that is terminated takes its own with it, a moment later.
        assert not offspring.wait(2 if way == "nested" else 0.2)
    assert (returned, output) == (code, "")
    if way == "interrupted":
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("KeyboardInterrupt") == 1  # the workers stay silent
    else:
        assert errors == ""
    assert not segments_of(pids)


@every_process
@pytest.mark.parametrize("source", ["endless", "blocked"])
@pytest.mark.parametrize("way", ["open", "nested"])
def test_workers_of_a_killed_consumer_end_themselves(kind, source, way, tmp_path):
    with run(tmp_path, kind, ENDS[way].format(source=source)) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        pids = [script.process.pid, *offspring.fds.values()]
        script.kill()
        assert not offspring.wait(2)
    assert not segments_of(pids)


FORKED = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # zmq runs threads, and Python warns of forking then
stream = ParallelStreamer(Streamer(range, 10**6), **options)
items = iter(stream)
first = [next(items) for _ in range(10)]

def forked(function):
    pid = os.fork()
    if not pid:
        function()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def opens_its_own():
    assert list(stream.iterate(5)) == list(range(5))

def closes():
    items.close()
    stream.close()

def takes_from_the_parent():
    try:
        for item in items:
            pass
    except Exception as error:
        assert "forked" in str(error), error
    else:
        raise AssertionError

for function in (lambda: None, opens_its_own, closes, takes_from_the_parent):
    forked(function)
    first += [next(items) for _ in range(2500)]
assert first == list(range(10_010))

entered, leave = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    os.close(leave[1])
    os.read(leave[0], 1)
    os._exit(0)
stream.close()  # while the other process still holds copies of all descriptors
os.close(leave[1])
os.waitpid(pid, 0)
say("done")
"""


@process_backends
def test_a_forked_process_leaves_the_pool_of_its_parent_alone(backend, tmp_path):
    with run(tmp_path, {"backend": backend}, FORKED) as script:
        code, output, errors = script.finish()
    assert (code, output, errors) == (0, "done\n", "")


TWO_POOLS = """
one = ParallelStreamer(Streamer(endless), backend=options["backend"])
other = ParallelStreamer(Streamer(endless), backend=options["backend"], start_method="fork")
items = iter(one), iter(other)  # the worker of the second holds copies of the descriptors of the first
next(items[0]), next(items[1])
one.close()
next(items[1])
other.close()
say("done")
"""


@process_backends
def test_pools_of_different_start_methods_end_in_any_order(backend, tmp_path):
    with run(tmp_path, {"backend": backend}, TWO_POOLS) as script:
        assert script.finish() == (0, "done\n", "")


UNGUARDED = """
import pescador
from dataclasses import dataclass
from enum import Enum

print("once")

@dataclass
class Sample:
    x: int
    y: np.ndarray

class Kind(Enum):
    A = 1

class Source:
    offset = 5
    def __call__(self, n):
        for i in range(n):
            yield Sample(i + self.offset, np.full(3, i))

@pescador.streamable
def numbers(n, function):
    for i in range(n):
        yield function(i)

class OfTheScript(Exception):
    pass

def raising():
    yield Kind.A
    raise OfTheScript("here")

scale = 3
mux = pescador.RoundRobinMux([numbers(4, lambda i: i * scale), numbers(4, float)])
samples = list(ParallelStreamer(Streamer(Source(), 3), **options))
assert all(type(sample) is Sample for sample in samples)
assert [(sample.x, list(sample.y)) for sample in samples] == [(5, [0] * 3), (6, [1] * 3), (7, [2] * 3)]
assert list(ParallelStreamer(mux, **options)) == list(mux)
assert list(ParallelStreamer(mux, n_workers=2, **options)) == list(mux)
items = iter(ParallelStreamer(Streamer(raising), **options))
assert next(items) is Kind.A
try:
    next(items)
except OfTheScript as error:
    assert "here" in str(error)
else:
    raise AssertionError
print("done")
"""


@every_process
def test_a_script_without_a_guard_works_with_what_it_defines(kind, tmp_path):
    with run(tmp_path, kind, UNGUARDED) as script:
        assert script.finish() == (0, "once\ndone\n", "")


ONE_AFTER_THE_OTHER = """
for method in {methods!r}:
    stream = ParallelStreamer(Streamer(endless), start_method=method, **options)
    for i, item in enumerate(stream):
        if i == 20:
            break
    assert len(list(stream.iterate(20))) == 20
say("done")
"""


@process_backends
def test_start_methods_may_follow_one_another(backend, tmp_path):
    with run(tmp_path, {"backend": backend}, ONE_AFTER_THE_OTHER.format(methods=START_METHODS)) as script:
        assert script.finish() == (0, "done\n", "")


COLLECTED = """
import gc
gc.set_threshold(1)  # pools are closed by the collector, while others are opened

class Holder:
    pass

for i in range(10):
    holder = Holder()
    holder.itself = holder
    holder.stream = ParallelStreamer(Streamer(range, 10**6), **options)
    holder.items = iter(holder.stream)
    next(holder.items)
say("done")
"""


@process_backends
def test_pools_in_cycles_are_closed_by_the_collector(backend, tmp_path):
    with run(tmp_path, {"backend": backend}, COLLECTED) as script:
        assert script.finish() == (0, "done\n", "")


BIG_SURROUNDINGS = """
os.environ.update({f"VARIABLE_{i}": "x" * 10_000 for i in range(20)})
sys.path += [f"/nowhere/{i}" * 100 for i in range(100)]
assert list(ParallelStreamer(Streamer(range, 3), **options)) == [0, 1, 2]
"""


@every_process
def test_environment_and_path_may_be_large(kind, tmp_path):
    with run(tmp_path, kind, BIG_SURROUNDINGS) as script:
        assert script.finish() == (0, "", "")
