"""However the consumer ends, nothing of it stays, and scripts need no guard: in processes of their own."""

import signal

import pytest

from ..kinds import (
    KINDS,
    PROCESSES,
    Script,
    every_process,
    process_backends,
    segments_of,
)

PRELUDE = '''
import contextlib, os, signal, sys, threading, time
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
    open("blocked", "w").close()
    time.sleep(1000)

def wait_until_blocked():
    """Its worker may still be told to end after the first item, and would."""
    while not os.path.exists("blocked"):
        time.sleep(0.001)

def say(text):
    print(text, flush=True)

def idle():
    while True:  # one long sleep does not see a signal that comes just before it
        time.sleep(0.01)

def say_when_waiting(text):
    """Say something when the main thread waits for a process to end."""
    main = threading.main_thread().ident

    def look():
        while sys._current_frames()[main].f_code.co_name != "_wait":
            time.sleep(0.001)
        say(text)

    threading.Thread(target=look, daemon=True).start()
'''


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
        assert errors.count("KeyboardInterrupt") == errors.count("Traceback") == 1  # the workers stay silent
    else:
        assert errors == ""
    assert not segments_of(pids)


@every_process
@pytest.mark.parametrize(
    ("number", "way", "source"),
    [
        (signal.SIGKILL, "open", "endless"),
        (signal.SIGKILL, "open", "blocked"),
        (signal.SIGKILL, "nested", "endless"),
        (signal.SIGKILL, "nested", "blocked"),
        (signal.SIGTERM, "open", "blocked"),
    ],
)
def test_workers_of_a_killed_consumer_end_themselves(kind, number, source, way, tmp_path):
    with run(tmp_path, kind, ENDS[way].format(source=source)) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        pids = [script.process.pid, *offspring.fds.values()]
        script.process.send_signal(number)
        assert not offspring.wait(2)
    assert not segments_of(pids)


EXECUTED = """
items = iter(ParallelStreamer(Streamer(blocked), **options))
next(items)
say("ready")
sys.stdin.readline()
os.execv(sys.executable, [sys.executable, "-c", "print('another', flush=True); input()"])
"""


@every_process
def test_workers_of_a_consumer_that_becomes_another_program_end_themselves(kind, tmp_path):
    with run(tmp_path, kind, EXECUTED) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        script.process.stdin.write("\n")
        script.process.stdin.flush()
        script.wait_for("another")
        assert not offspring.wait(2)
        assert script.process.poll() is None


# Each says "ready" when it is time for Ctrl-C.
PHASES = {
    "start": """
def started(function):
    def start(*args, **kwargs):
        result = function(*args, **kwargs)
        if result != 0:
            say("ready")
        return result
    return start

subprocess.Popen, os.fork = started(subprocess.Popen), started(os.fork)

def phase():
    list(ParallelStreamer(Streamer(blocked), **options))
""",
    "recipe": """
class Recipe:
    def __reduce__(self):
        say("ready")
        idle()

def phase():
    list(ParallelStreamer(Streamer([Recipe()]), **options))
""",
    "wait": """
def phase():
    for item in ParallelStreamer(Streamer(blocked), timeout=0.1, **options):
        say("ready")
""",
    "body": """
def phase():
    for item in ParallelStreamer(Streamer(blocked), timeout=0.1, **options):
        say("ready")
        idle()
""",
    "close": """
def phase():
    stream = ParallelStreamer(Streamer(blocked), timeout=1000, **options)
    items = iter(stream)
    next(items)
    wait_until_blocked()
    say_when_waiting("ready")
    stream.close()
""",
}

INTERRUPTED = """
import gc, psutil, subprocess
{phase}
try:
    phase()
except KeyboardInterrupt:
    print("interrupted")
gc.collect()
assert not psutil.wait_procs(psutil.Process().children(recursive=True), 10)[1]
print(list(ParallelStreamer(Streamer(range, 3), **options)))
"""


@every_process
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_leaves_nothing_of_what_it_interrupts_and_the_program_may_go_on(kind, phase, tmp_path):
    with run(tmp_path, kind, INTERRUPTED.format(phase=PHASES[phase])) as script:
        script.wait_for("ready")
        script.signal_group(signal.SIGINT)
        code, output, errors = script.finish()
    output = output.replace("ready\n", "")  # of the workers that start after that
    assert (code, output, errors) == (0, "interrupted\n[0, 1, 2]\n", "")


UNHEARD = """
# No system call is interrupted by a signal that comes just before it, or that another thread takes.
threading.Thread(target=idle, daemon=True).start()

def wait_until_reading(thread):
    while sys._current_frames()[thread.ident].f_code.co_name not in ("wait", "poll"):
        time.sleep(0.001)

def say_when_reading(text):
    wait_until_reading(threading.main_thread())
    time.sleep(0.1)  # the first wait, until the bell is rung, is a short one
    say(text)

def read(items):
    with contextlib.suppress(Exception):
        next(items)

def phase():
    with ParallelStreamer(Streamer(blocked), timeout=0.1, **options) as stream:
        items = iter(stream)
        next(items)
        wait_until_blocked()
        if {second}:
            other = threading.Thread(target=read, args=[iter(stream)])
            other.start()
            wait_until_reading(other)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        threading.Thread(target=say_when_reading, args=["ready"]).start()
        next(items)
"""


@pytest.mark.parametrize("second", [False, True], ids=["first thread", "second thread"])
@pytest.mark.parametrize("kind", [KINDS["thread"], *PROCESSES.values()], ids=["thread", *PROCESSES])
def test_a_ctrl_c_that_interrupts_no_system_call_is_heard(kind, second, tmp_path):
    with run(tmp_path, kind, INTERRUPTED.format(phase=UNHEARD.format(second=second))) as script:
        script.wait_for("ready")
        script.signal_group(signal.SIGINT)
        code, output, errors = script.finish()
    assert (code, output, errors) == (0, "interrupted\n[0, 1, 2]\n", "")


AT_EXIT = """
import atexit
stream = ParallelStreamer(Streamer(blocked), timeout=1000, **options)
items = iter(stream)
next(items)
wait_until_blocked()
atexit.register(say_when_waiting, "ready")  # and after that the stream is closed
"""


@every_process
def test_ctrl_c_while_the_interpreter_waits_for_workers_at_its_end(kind, tmp_path):
    with run(tmp_path, kind, AT_EXIT) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        script.signal_group(signal.SIGINT)
        _, output, errors = script.finish()
        assert not offspring.wait(0.2)
    assert output == ""
    assert errors.count("KeyboardInterrupt") == 1


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
            raise ValueError(item)
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


ONE_AFTER_THE_OTHER = """
from pescador.backends.launch import START_METHODS
for method in START_METHODS:
    stream = ParallelStreamer(Streamer(endless), start_method=method, **options)
    for i, item in enumerate(stream):
        if i == 20:
            break
    assert len(list(stream.iterate(20))) == 20
say("done")
"""


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


COLLECTED_ELSEWHERE = """
import gc
gc.disable()
for i in range(10):
    cycle = [ParallelStreamer(Streamer(range, 10**6), **options)]
    cycle += [iter(cycle[0]), cycle]
    next(cycle[1])
    del cycle
    thread = threading.Thread(target=gc.collect)
    thread.start()  # closes that pool, while this one is opened
    assert list(ParallelStreamer(Streamer(range, 1000), **options)) == list(range(1000))
    thread.join()
say("done")
"""


SCRIPTS = {
    "forked-process-leaves-the-pool-of-its-parent-alone": FORKED,
    "pools-of-different-start-methods-end-in-any-order": TWO_POOLS,
    "start-methods-may-follow-one-another": ONE_AFTER_THE_OTHER,
    "pools-in-cycles-are-closed-by-the-collector": COLLECTED,
    "the-collector-runs-in-another-thread": COLLECTED_ELSEWHERE,
}


@process_backends
@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_scripts_that_check_themselves(backend, text, tmp_path):
    with run(tmp_path, {"backend": backend}, text) as script:
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


BIG_SURROUNDINGS = """
os.environ.update({f"VARIABLE_{i}": "x" * 10_000 for i in range(20)})
sys.path += [f"/nowhere/{i}" * 100 for i in range(100)]
assert list(ParallelStreamer(Streamer(range, 3), **options)) == [0, 1, 2]
"""


@every_process
def test_environment_and_path_may_be_large(kind, tmp_path):
    with run(tmp_path, kind, BIG_SURROUNDINGS) as script:
        assert script.finish() == (0, "", "")
