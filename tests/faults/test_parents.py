"""However the consumer ends, nothing of it stays: in processes of their own."""

import signal

import pytest

from ..kinds import every_process, process_backends
from .scripts import run

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
        script.process.send_signal(number)
        assert not offspring.wait(2)


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
from pescador.backends.processes.launcher import START_METHODS
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
