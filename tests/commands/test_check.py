"""``pescador.check`` finds each planted defect, names its place and cause, and finds nothing else."""

import functools
import os
import random
import threading
import time
import uuid
import warnings

import numpy as np
import pytest

import pescador
from pescador import RNG, Streamer

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


class Timed:
    """A data set whose entries depend on the time."""

    def __getitem__(self, i):
        return time.monotonic()


def entries_of(data):
    yield from (data[i] for i in range(50))


@pescador.streamable
def decorated():
    yield from calls_another()


@pytest.mark.parametrize(
    "make", [lambda: Streamer(entries_of, Timed()), decorated], ids=["method", "decorated"]
)
def test_code_that_is_reached_through_an_object_or_a_decorator(make):
    found(check(make()), "error", "not repeatable", "the time: time.")


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


class Reader:
    def read(self, path):
        self.file = open(path, "rb")  # noqa: SIM115 -- it goes with the copy that an opening has
        return np.memmap(self.file, mode="r")


def rows_of_a_file(reader, path):
    mapped = reader.read(path)
    while True:
        yield {"x": mapped[:10]}


def test_a_file_that_goes_with_the_arguments_of_an_opening_is_not_left_behind(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(1 << 21))
    report = check(Streamer(rows_of_a_file, Reader(), path))
    assert_nothing_else(report)


def python_lists():
    while True:
        yield {"x": np.zeros(3), "tokens": [str(i) for i in range(10_000)]}


def test_large_items_that_are_pickled():
    report = check(python_lists)
    found(report, "warning", "go the slow way", "most of it item['tokens']")
    assert_nothing_else(report, "warning")
