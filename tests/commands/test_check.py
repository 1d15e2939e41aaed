"""``pescador.check`` finds each planted defect, names its place and cause, and finds nothing else."""

import functools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

import pescador
from pescador import RNG, Streamer
from pescador.commands import main
from pescador.commands.check.comparing import difference

from ..kinds import ROOT
from ..test_examples import EXAMPLES, imported_packages
from ..test_examples import SECONDS as EXAMPLE_SECONDS

N = 12
PATIENCE = 60.0  # seconds of an opening that is not meant to be late


def check(stream, n=N, seconds=PATIENCE):
    return pescador.check(stream, n, seconds=seconds)


def found(report, level, *words):
    """Return the only finding of a level that has all these words in its text."""
    matching = [
        one for one in report.findings if all(word in f"{one.what} {one.where} {one.cause}" for word in words)
    ]
    assert [one.level for one in matching] == [level], str(report)
    return matching[0]


def assert_nothing_else(report, *levels):
    """Besides notes, there are findings of these levels only."""
    assert [one.level for one in report.findings if one.level != "note"] == list(levels), str(report)


# Streams that are as they should be


def numbers(n, rng):
    for i in range(n):
        yield {"x": rng.random(4), "i": i}


def clean(n=50):
    return Streamer(numbers, n, rng=RNG)


MUXES = {
    "stochastic": lambda: pescador.StochasticMux([clean(), clean()], 2, 4),
    "of a generator": lambda: pescador.StochasticMux(
        [clean(), clean()], 1, 4, random_state=np.random.default_rng(0)
    ),
    "shuffled": lambda: pescador.ShuffledMux([clean(), clean()], random_state=0),
    "round robin": lambda: pescador.RoundRobinMux([clean(3), clean(2)], "permuted_cycle"),
    "chain": lambda: pescador.ChainMux([clean(3), clean(2)], "cycle"),
    "of muxes": lambda: pescador.ChainMux([pescador.ShuffledMux([clean(3), clean(2)]), clean(3)]),
    "a map of one": lambda: Streamer(pescador.buffer_stream, pescador.ShuffledMux([clean(), clean()]), 4),
    "in the background": lambda: pescador.ParallelStreamer(pescador.RoundRobinMux([clean(), clean()])),
    "of one in the background": lambda: pescador.RoundRobinMux([pescador.ParallelStreamer(clean()), clean()]),
}


@pytest.mark.parametrize("make", [clean, *MUXES.values()], ids=["streamer", *MUXES])
def test_a_clean_stream_has_no_findings_but_its_throughput(make):
    report = check(make())
    assert_nothing_else(report)
    assert report.ok
    assert report.n_items == N
    found(report, "note", "throughput")


def test_iterables_are_streams():
    assert check(range(5)).n_items == 5


def test_what_is_no_stream_is_refused():
    with pytest.raises(pescador.PescadorError, match="takes an iterable or a generator function"):
        pescador.check(3)


@pytest.mark.parametrize(("n", "seconds"), [(0, 1), (2.5, 1), (1, 0), (1, float("inf"))])
def test_parameters_that_cannot_work_are_refused(n, seconds):
    with pytest.raises(pescador.PescadorError):
        pescador.check(clean(), n, seconds=seconds)


def test_it_leaves_no_trace(recwarn):
    def first(mux):
        return [item["x"].tolist() for item in mux.iterate(3)]

    mux, twin = (pescador.ShuffledMux([clean()], random_state=np.random.default_rng(0)) for _ in range(2))
    states = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002 -- it is about this state
    filters = list(warnings.filters)
    check(mux)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states  # noqa: NPY002 -- as above
    assert warnings.filters == filters
    assert first(mux) == first(twin)  # no opening was counted
    assert not recwarn.list


# Not repeatable


def clock():
    while True:
        yield {"now": time.time()}


def test_the_time():
    report = check(clock)
    finding = found(report, "error", "not repeatable", "item['now']", "item 0", "the time: time.time (")
    assert f"{__file__}:" in finding.cause
    assert_nothing_else(report, "error")


def test_the_stream_that_is_not_repeatable_is_named():
    finding = found(check(pescador.RoundRobinMux([clean(), Streamer(clock)])), "error", "not repeatable")
    assert finding.where == "item 1, which is item 0 of stream.streamers[1], Streamer(clock)"


def test_the_stream_below_a_map_is_named():
    mux = pescador.RoundRobinMux([Streamer(tick, False), Streamer(tick, True)])
    finding = found(check(Streamer(pescador.buffer_stream, mux, 2)), "error", "not repeatable")
    assert finding.where == "item 0; by itself, stream.args[0].streamers[1] differs at its item 0"


def tick(ticks):
    while True:
        yield {"now": time.perf_counter() if ticks else 0.0}


class Hasty(pescador.BaseMux):
    def samples(self):
        streams = [self.open_stream(i) for i in range(self.n_streams)]
        with self.closing(streams):
            while True:
                yield next(streams[uuid.uuid4().int % 2])


def test_a_mux_that_draws_otherwise_is_named():
    mux = Hasty([Streamer(tick, False), Streamer("ab" * 99)])
    finding = found(check(mux, 60), "error", "not repeatable", "another stream was drawn")
    assert "uuid.uuid4" in finding.cause


def unseeded():
    rng = np.random.default_rng()
    while True:
        yield rng.random()


def test_an_unseeded_generator():
    finding = found(check(unseeded), "error", "not repeatable", "np.random.default_rng")
    assert "rng=pescador.RNG" in finding.remedy


def imports_inside():
    from os import urandom

    while True:
        yield urandom(4)


def test_a_function_that_is_imported_inside():
    found(check(imports_inside), "error", "not repeatable", "urandom")


def now():
    return time.perf_counter()


def calls_another():
    while True:
        yield now()


def test_a_function_that_the_generator_calls():
    found(check(calls_another), "error", "not repeatable", "time.perf_counter")


SHARED_RNG = np.random.default_rng(0)


def draws_from_a_global_generator():
    while True:
        yield SHARED_RNG.random()


def test_a_random_generator_that_is_a_global():
    report = check(draws_from_a_global_generator)
    found(
        report,
        "error",
        "not repeatable",
        "SHARED_RNG (a global that is used by draws_from_a_global_generator)",
    )
    found(report, "warning", "changes what its openings share", "SHARED_RNG")


def draws_from_numpy():
    while True:
        yield np.random.random()  # noqa: NPY002 -- the defect


def draws_from_random():
    while True:
        yield random.random()


@pytest.mark.parametrize(("stream", "name"), [(draws_from_numpy, "np.random"), (draws_from_random, "random")])
def test_global_random_numbers_are_a_warning(stream, name):
    report = check(stream)
    finding = found(report, "warning", f"draws from the global state of {name}", f"{name}.random (")
    assert "rng=pescador.RNG" in finding.remedy
    assert_nothing_else(report, "warning")


def draws_from_its_argument(rng):
    while True:
        yield rng.random()


@pytest.mark.parametrize("rng", [np.random.default_rng(0), random.Random(0)], ids=["numpy", "random"])
def test_a_random_generator_among_the_arguments(rng):
    report = check(Streamer(draws_from_its_argument, rng=rng))
    found(report, "warning", "gives the same random numbers at each opening", "stream.kwargs['rng']")
    assert_nothing_else(report, "warning")


@pytest.mark.parametrize("source", [iter(range(99)), (i for i in range(99))], ids=["iterator", "generator"])
def test_an_iterator_that_is_used_up(source):
    report = check(source)
    found(report, "error", "not repeatable", "where an iterator was left", "stream.streamer")
    assert "Streamer(function, ...)" in found(report, "error", "cannot be sent to a worker process").remedy


def pieces_of(generator):
    yield from generator


def test_a_generator_among_the_arguments():
    found(check(Streamer(pieces_of, (i for i in range(99)))), "error", "not repeatable", "stream.args[0]")


def lines_of(path):
    with open(path, "a+") as file:
        print("a line", file=file)
        file.seek(0)
        yield from list(file)


def test_a_file_that_changes(tmp_path):
    path = tmp_path / "lines"
    path.write_text("the first\n")
    found(check(Streamer(lines_of, path)), "error", "not repeatable", f"is the file {path}, and has changed")


# Different in the background


def names_of(names):
    yield from names


def test_the_order_of_a_set():
    report = check(Streamer(names_of, {f"name {i}" for i in range(20)}))
    finding = found(report, "error", "differs on one worker process", "the order of a set", "stream.args[0]")
    assert "sorted(" in finding.remedy
    assert_nothing_else(report, "error")


def process_numbers(n):
    for i in range(n):
        yield os.getpid() if i == 3 else i


def test_the_item_and_the_stream_that_differ_in_the_background():
    report = check(pescador.RoundRobinMux([Streamer(range(50)), Streamer(process_numbers, 50)]))
    finding = found(report, "error", "differs on one worker process", "os.getpid")
    assert finding.where.startswith(
        "item 7, which is item 3 of stream.streamers[1], Streamer(process_numbers, "
    )
    assert_nothing_else(report, "error")


def thread_names():
    while True:
        yield threading.current_thread().name


def test_what_differs_in_a_thread():
    found(check(thread_names), "error", "differs in a thread", "threading.current_thread")


def locks():
    while True:
        yield {"name": "a", "lock": threading.Lock()}


def test_items_that_cannot_be_sent():
    report = check(locks)
    found(report, "error", "fails on one worker process", "item 0['lock'], a lock, cannot be pickled")
    assert_nothing_else(report, "error")


# Not isolated


def count_in_default(counts=[0]):  # noqa: B006 -- the defect
    while True:
        counts[0] += 1
        yield counts[0]


def test_a_default_that_changes():
    report = check(count_in_default)
    found(report, "error", "not repeatable", "counts (a default of count_in_default)[0], which was 0")
    found(report, "warning", "changes what its openings share", "counts (a default of count_in_default)[0]")


def test_a_closure_that_changes():
    seen = []

    def remember():
        for i in range(50):
            seen.append(i)
            yield i

    report = check(Streamer(remember))
    finding = found(report, "warning", "changes what its openings share")
    assert f"seen (in the closure of {remember.__qualname__}), which was a list of 0" in finding.what
    assert_nothing_else(report, "warning")


class Tally:
    """Counts, and does not let itself be copied."""

    def __init__(self):
        self.n = 0

    def __deepcopy__(self, memo):
        return self


def tallied(tally):
    while True:
        tally.n += 1
        yield "a"


def test_an_argument_that_is_not_copied_and_changes():
    report = check(Streamer(tallied, Tally()))
    found(report, "error", "changes what its openings share: stream.args[0].n, which was 0")
    assert_nothing_else(report, "error")


def appends(entries):
    while True:
        entries.append(1)
        yield len(entries)


def test_a_copy_of_an_argument_that_changes_is_a_note():
    report = check(Streamer(appends, [5]))
    found(report, "note", "changes its argument stream.args[0], which was a list of 1")
    assert_nothing_else(report)


def writes(x):
    x += 1
    yield x


def test_an_array_among_the_arguments_that_is_written_to():
    finding = found(check(Streamer(writes, np.zeros(3))), "error", "raises an exception", "read-only")
    assert "x.copy()" in finding.remedy


# Not to be sent


class Guarded:
    def __init__(self):
        self.lock = threading.Lock()


def ones(*arguments):
    while True:
        yield 1


def test_the_path_to_what_cannot_be_pickled():
    report = check(pescador.ChainMux([clean(3), Streamer(ones, [Guarded()])]))
    finding = found(report, "error", "cannot be sent to a worker process")
    assert finding.where == "stream.streamers[1].args[0][0].lock, a lock"
    assert "cannot pickle" in finding.cause
    assert_nothing_else(report, "error")


def test_the_path_leads_through_closures_and_partials():
    lock = threading.Lock()

    def guarded(n):
        with lock:
            yield from range(n)

    finding = found(check(Streamer(functools.partial(guarded, 30))), "error", "cannot be sent")
    assert finding.where == f"lock (in the closure of {guarded.__qualname__}), a lock"


# Copies, memory, and ways of sending


def refills():
    x = np.zeros(1 << 15)
    for i in range(50):
        x[:] = i
        yield {"x": x}


def test_a_buffer_that_is_filled_again():
    report = check(refills)
    found(report, "note", "fills one buffer again", "item 0")
    found(report, "note", "are copied in a thread", "writes into arrays that it has yielded")
    assert_nothing_else(report)


def made():
    while True:
        yield {"x": np.ones(1 << 14)}


def made_in_place():
    while True:
        yield {"x": pescador.empty(1 << 14)}


def made_in_place_and_held():
    while True:
        x = pescador.empty(1 << 14)
        yield {"x": x}


def test_items_that_are_copied_though_they_need_not_be():
    finding = found(check(made), "note", "131 kB an item are copied on one worker process")
    assert "pescador.empty" in finding.remedy


def test_items_that_are_made_in_place_are_not_copied():
    assert "copied" not in str(check(made_in_place))


def test_items_that_are_made_in_place_and_held_are_copied():
    report = check(made_in_place_and_held)
    found(report, "note", "copied on one worker process", "its generator still refers to the arrays")
    found(report, "note", "copied in a thread", "its generator still refers to the arrays")


def rows_of_its_own():
    yield from ({"x": row} for row in np.zeros((50, 1 << 15)))


def rows_of(array):
    yield from ({"x": row} for row in array)


def test_views_that_keep_a_large_array():
    report = check(rows_of_its_own)
    found(report, "warning", "keeps a large array in memory: item['x'] has 262 kB", "13.1 MB")
    assert_nothing_else(report, "warning")


def test_views_of_an_argument_keep_nothing_more():
    assert_nothing_else(check(Streamer(rows_of, np.zeros((50, 1 << 15)))))


def python_lists():
    while True:
        yield {"x": np.zeros(3), "tokens": [str(i) for i in range(10_000)]}


def test_large_items_that_are_pickled():
    report = check(python_lists)
    found(report, "warning", "go the slow way", "most of it item['tokens']")
    assert_nothing_else(report, "warning")


# Ends


kept = []


def leaves_a_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    while True:
        yield 1


def leaves_a_thread():
    event = threading.Event()
    thread = threading.Thread(target=event.wait, name="left-alone", daemon=True)
    thread.start()
    kept.append((event, thread))
    while True:
        yield 1


def leaves_a_file():
    kept.append(open(__file__))  # noqa: SIM115 -- the defect
    while True:
        yield 1


def leaves_shared_memory(_):
    kept.append(SharedMemory(f"test-{os.getpid()}-{len(kept)}", create=True, size=100))
    while True:
        yield 1


def end(left):
    if isinstance(left, SharedMemory):
        left.close()
        left.unlink()
    elif isinstance(left, subprocess.Popen):
        left.communicate()
    elif isinstance(left, tuple):
        left[0].set()
        left[1].join()
    else:
        left.close()


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (leaves_a_process, "process: "),
        (leaves_a_thread, "thread: left-alone"),
        (leaves_a_file, f"open file: {__file__}"),
    ],
    ids=["process", "thread", "file"],
)
def test_what_is_left_behind(stream, words):
    try:
        report = check(stream)
    finally:
        while kept:
            end(kept.pop())
    found(report, "error", f"leaves something behind when it is closed: {words}")


def test_shared_memory_that_is_left_behind():
    try:
        report = check(
            Streamer(leaves_shared_memory, threading.Lock())
        )  # not on a worker, which would leave it
    finally:
        while kept:
            end(kept.pop())
    found(report, "warning", "leaves something behind when it is closed: shared memory: /dev/shm/")
    found(report, "error", "leaves something behind when it is closed: open file: /dev/shm/")


def leaves_temporary_files():
    tempfile.mkdtemp()
    while True:
        yield 1


def test_temporary_files_that_are_left_behind_may_be_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    report = check(leaves_temporary_files)
    found(report, "warning", f"leaves something behind when it is closed: temporary file: {tmp_path}/")
    assert_nothing_else(report, "warning")


def opens_once():
    if not kept:
        kept.append(open(__file__))  # noqa: SIM115
    while True:
        yield 1


def test_what_is_left_only_once_is_a_note():
    try:
        report = check(opens_once)
    finally:
        kept.pop().close()
    found(report, "note", "the first opening left something: open file")


def ignores_its_end():
    while True:
        try:  # noqa: SIM105
            yield 1
        except:  # noqa: E722 -- the defect
            pass


def test_a_generator_that_ignores_its_end():
    report = check(ignores_its_end)
    finding = found(report, "error", "ignores its end")
    assert finding.where.startswith(__file__)
    assert finding.remedy.startswith("Catch Exception instead")
    assert_nothing_else(report, "error")


def raises_at_its_end():
    try:
        while True:
            yield 1
    finally:
        raise OSError("disk is full")


def test_a_generator_that_raises_at_its_end():
    report = check(raises_at_its_end)
    found(report, "error", "raises when it is closed", "OSError: disk is full")
    assert_nothing_else(report, "error")


def raises(n):
    yield from range(n)
    raise RuntimeError("disk on fire")


def test_a_stream_that_raises():
    report = check(pescador.ChainMux([range(3), Streamer(raises, 2)]))
    finding = found(report, "error", "raises an exception", "RuntimeError: disk on fire", __file__)
    assert finding.where.startswith("item 5, which is item 2 of stream.streamers[1], ")
    assert_nothing_else(report, "error")


def warns():
    warnings.warn("careful", UserWarning, stacklevel=1)
    yield 1


def test_warnings_of_the_stream_are_notes():
    found(check(warns), "note", "warns: UserWarning: careful")


def test_a_stream_without_items():
    found(check([]), "warning", "gives no items")


# Time


def blocks(n, event=None):
    yield from range(n)
    (event or threading.Event()).wait()


def test_a_stream_that_blocks_at_once_is_ended():
    report = check(Streamer(blocks, 0), seconds=0.5)
    finding = found(report, "error", "item 0 did not come in 0.5 s, on one worker process")
    assert "It was ended" in finding.cause
    assert_nothing_else(report, "error")


def test_of_a_stream_that_blocks_later_is_checked_what_came():
    report = check(Streamer(blocks, 3), seconds=4)
    found(report, "warning", "item 3 did not come in 4 s")
    found(report, "note", "3 of 12 items were compared")
    assert_nothing_else(report, "warning")


def test_a_stream_that_blocks_in_this_process_is_given_up():
    event = threading.Event()
    try:
        report = check(Streamer(blocks, 3, event), seconds=0.2)
    finally:
        event.set()
    found(report, "error", "item 3 did not come in 0.2 s, serially")
    found(report, "error", "cannot be sent to a worker process: stream.args[1]")


def sleeps(seconds):
    while True:
        time.sleep(seconds)
        yield 1


def test_making_items_is_said_to_be_the_bottleneck():
    report = check(Streamer(sleeps, 0.02))
    found(
        report, "note", "throughput", "in a thread", "on one worker process", "making items is the bottleneck"
    )
    assert_nothing_else(report)


def test_a_slow_stream_is_bounded():
    report = check(Streamer(sleeps, 0.1), 1000, seconds=2.5)
    found(report, "note", "of 1000 items were compared")
    assert_nothing_else(report)


# Comparing


class Plain:
    def __init__(self, x):
        self.x = x


NAN = float("nan")
DATES = np.array(["2020-01-01", "NaT"], "M8[D]")
RECORDS = np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.array([1.0, NAN]),
        lambda: np.array([{"a": 1}, None], object),
        lambda: DATES.copy(),
        lambda: RECORDS.copy(),
        lambda: np.ma.masked_array([1, 2], [True, False]),
        lambda: {"x": [NAN, (1, "a")], "y": {2, 3}},
        lambda: Plain(np.zeros(3)),
        lambda: np.float32(NAN),
        threading.Lock,
    ],
)
def test_equal_items(make):
    assert difference(make(), make()) is None


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (np.zeros(2), np.zeros(2, np.float32), "float64"),
        (np.zeros(2), np.zeros(3), "shape=(2,)"),
        (np.array([0, 1, 2]), np.array([0, 1, 3]), "item[2] is np.int64(2), and np.int64(3)"),
        ({"x": 1}, {"y": 1}, "keys"),
        ({"x": [1, 2.5]}, {"x": [1, 3.5]}, "item['x'][1] is 2.5, and 3.5"),
        ([1], [1, 2], "1 entries, and 2"),
        (1, True, "int, and bool"),
        (Plain(1), Plain(2), "item['x'] is 1, and 2"),
        (np.ma.masked_array([1], [True]), np.ma.masked_array([1], [False]), "item.mask[0]"),
        (RECORDS, np.array([(1, 3.0)], RECORDS.dtype), "item['b'][0]"),
    ],
)
def test_different_items(one, other, words):
    assert words.replace("np.int64(2)", repr(np.int64(2))).replace(
        "np.int64(3)", repr(np.int64(3))
    ) in difference(one, other)


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mystreams.py").write_text(
        "import time, pescador\n"
        "def count():\n    print('its own line')\n    yield from range(30)\n"
        "def clock():\n    while True: yield time.time()\n"
        "clean = pescador.Streamer(count)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mystreams", None)


@pytest.mark.parametrize(("name", "code"), [("clean", 0), ("clock", 1)])
def test_the_command_prints_the_report(folder, capsys, name, code):
    assert main(["check", f"mystreams:{name}", "-n", "5"]) == code
    out = capsys.readouterr().out
    assert out.startswith(f"{name}: 5 items of each opening were compared; {code or 1} ")
    assert ("\nerror    not repeatable: " in out) is bool(code)
    assert "its own line" not in out


@pytest.mark.parametrize("name", ["nothing", "mystreams:nothing", "missing:clean"])
def test_a_name_that_is_none_is_a_wrong_use_of_the_command(folder, capsys, name):
    assert main(["check", name]) == 2
    assert capsys.readouterr().err.startswith("pescador check: ")


# The examples


CHECK_ALL = """
import contextlib, io, sys, tempfile
import pescador

folders = []

class Kept(tempfile.TemporaryDirectory):
    def __init__(self):
        super().__init__()
        folders.append(self)

    def __exit__(self, *exception):
        pass

tempfile.TemporaryDirectory = Kept
try:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), globals())
    streams = {id(value): value for value in globals().values() if isinstance(value, pescador.Streamer)}
    assert streams
    for stream in streams.values():
        report = pescador.check(stream, 10, seconds=60)
        assert report.n_items
        if not report.ok:
            print(stream, report, sep="\\n", end="\\n\\n")
finally:
    for folder in folders:
        folder.cleanup()
"""


# One has muxes of others, and trains for a minute; one makes its stream in processes of its own.
NOT_CHECKED = {"keras_example", "resume"}


@pytest.mark.parametrize(
    "script",
    [script for script in EXAMPLES if script.stem not in NOT_CHECKED],
    ids=lambda script: script.stem,
)
def test_the_streams_of_the_examples_break_no_law(script, tmp_path):
    for package in imported_packages(script):
        pytest.importorskip(package)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", CHECK_ALL, str(script)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
