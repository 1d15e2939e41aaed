"""States: which iteration they are of, what goes on from them, what they hold, and what is refused."""

import copy
import json
import logging
import math
import pickle
import threading
from functools import partial
from itertools import count, islice

import numpy as np
import pytest

import pescador
from pescador import (
    RNG,
    START,
    ChainMux,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    buffer_stream,
    checkpoint,
    streamable,
)

from .kinds import every_backend
from .streams import Counting, constant, countdown, failing, noise, numbers


def noises(mux=ShuffledMux, **options):
    """Return a mux of streams of random numbers."""
    return mux([Streamer(noise, 1000, RNG) for _ in range(4)], **options)


def begun(stream, n, *args, **kwargs):
    """Return an iterator that gave n items."""
    items = stream(*args, **kwargs)
    assert len(list(islice(items, n))) == n
    return items


def state_after(stream, n, *args, **kwargs):
    """Return the state of an iterator that gave n items and was closed, as it comes out of JSON."""
    items = begun(stream, n, *args, **kwargs)
    state = json.loads(json.dumps(items.state_dict()))
    items.close()
    return state


def going_on(stream, state, *args, **kwargs):
    """Return an iterator that goes on from a state."""
    stream.load_state_dict(state)
    return stream(*args, **kwargs)


# Which iteration is meant


def test_the_state_of_a_stream_is_that_of_its_last_iterator():
    stream = Streamer(numbers, 9)
    one = begun(stream, 2)
    assert stream.state_dict() == one.state_dict()
    other = begun(stream, 5)
    assert stream.state_dict() == other.state_dict() != one.state_dict()
    one.close()
    assert list(going_on(stream, other.state_dict())) == [5, 6, 7, 8]
    assert list(going_on(stream, one.state_dict())) == [2, 3, 4, 5, 6, 7, 8]


@every_backend
def test_a_loop_that_was_broken_off_can_be_gone_on_with(backend):
    with ParallelStreamer(noises(random_state=0), backend) as stream:
        expected = list(stream(20))
        for i, _ in enumerate(stream):
            if i == 6:
                break
        state = stream.state_dict()
        stream.load_state_dict(state)
        assert list(islice(stream, 13)) == expected[7:]


@pytest.mark.parametrize("backend", ["serial", "thread", "shm"])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_parallel_streamer_that_was_closed_can_be_gone_on_with(backend, n_workers):
    mux = noises(StochasticMux, n_active=2, rate=4, random_state=0)
    with ParallelStreamer(mux, backend, n_workers) as stream:
        items = begun(stream, 30)
    assert list(islice(going_on(mux, items.state_dict()), 20)) == list(mux(50))[30:]
    items.close()


@pytest.mark.parametrize("begin", [iter, Streamer.iterate, Streamer.cycle, Streamer.__call__])
def test_a_loaded_state_holds_for_the_next_iteration_alone(begin):
    stream = Streamer(numbers, 5)
    stream.load_state_dict(state_after(stream, 3))
    assert list(islice(begin(stream), 2)) == [3, 4]
    assert list(islice(begin(stream), 2)) == [0, 1]


def test_an_open_iterator_does_not_notice_that_a_state_is_loaded():
    stream = Streamer(numbers, 5)
    items = begun(stream, 1)
    stream.load_state_dict(state_after(stream, 3))
    assert list(items) == [1, 2, 3, 4]
    assert list(stream) == [3, 4]


def test_a_with_block_leaves_a_loaded_state_to_the_next_iteration():
    stream = Streamer(numbers, 5)
    state = state_after(stream, 3)
    stream.load_state_dict(state)
    with stream as active:
        assert list(active.stream_) == [0, 1, 2, 3, 4]
    assert stream.state_dict() == state
    assert list(stream) == [3, 4]


def test_a_loaded_state_that_was_not_begun_is_returned_as_it_is():
    stream = noises(random_state=np.random.default_rng(0))
    list(stream(5))
    state = state_after(stream, 3)
    stream.load_state_dict(state)
    assert stream.state_dict() == state
    items = iter(stream)
    assert items.state_dict() == stream.state_dict() == state


def test_a_stream_that_was_not_begun_begins():
    stream = Streamer(numbers, 3)
    for state in (stream.state_dict(), stream.iterate().state_dict(), state_after(stream, 0)):
        assert state["state"] is None
        assert list(going_on(stream, state)) == [0, 1, 2]


def test_a_state_can_be_used_again_and_is_not_changed():
    stream = noises(StochasticMux, n_active=2, rate=3, random_state=0)
    expected = list(stream(60))
    state = state_after(stream, 17)
    text = json.dumps(state)
    for _ in range(2):
        assert list(going_on(stream, state, 60)) == expected[17:]
    assert json.dumps(state) == text


def test_to_ask_after_each_item_changes_nothing():
    stream = noises(StochasticMux, n_active=2, rate=3, mode="single_active", random_state=0)
    expected = list(stream(60))
    items, found = stream(60), []
    for item in items:
        found.append(item)
        items.state_dict()
    assert found == expected


def test_to_ask_leaves_the_global_generator_as_it_is():
    np.random.seed(0)  # noqa: NPY002 -- this is about it
    expected = np.random.random()  # noqa: NPY002 -- as above
    np.random.seed(0)  # noqa: NPY002 -- as above
    begun(Streamer(numbers, 3), 1).state_dict()
    assert np.random.random() == expected  # noqa: NPY002 -- as above


# Epochs


def test_after_its_end_a_stream_begins_anew():
    stream = Streamer(numbers, 3)
    items = begun(stream, 3)
    assert list(going_on(stream, items.state_dict())) == []  # the end itself was not reached
    assert list(items) == []
    assert items.state_dict()["state"] is None
    assert list(going_on(stream, items.state_dict())) == [0, 1, 2]


def test_a_stream_that_went_on_to_its_end_begins_anew():
    stream = Streamer(numbers, 3)
    assert list(going_on(stream, state_after(stream, 2))) == [2]
    state = stream.state_dict()
    assert state["state"] is None
    assert list(going_on(stream, state)) == [0, 1, 2]


@pytest.mark.parametrize("generator", [np.random.default_rng, np.random.RandomState])
def test_the_openings_of_a_generator_are_counted_on(generator):
    def make():
        inner = noises(StochasticMux, n_active=2, rate=4, random_state=generator(1))
        return ChainMux([inner, noises(random_state=generator(2))], random_state=None)

    stream = make()
    expected = [list(stream(9)) for _ in range(4)]
    assert len(set(map(tuple, expected))) == 4
    stream = make()
    list(stream(9))
    within = state_after(stream, 5)
    stream = make()
    assert list(going_on(stream, within, 9)) == expected[1][5:]
    assert list(stream(9)) == expected[2]
    at_the_end = stream.state_dict()
    stream = make()
    assert list(going_on(stream, at_the_end, 9)) == expected[3]


def test_the_global_generator_has_no_part_in_what_goes_on_and_governs_the_next_epoch():
    stream = noises()
    np.random.seed(1)  # noqa: NPY002 -- this is about it
    expected = list(stream(9))
    np.random.seed(1)  # noqa: NPY002 -- as above
    state = state_after(stream, 4)
    np.random.seed(2)  # noqa: NPY002 -- as above
    assert list(going_on(stream, state, 9)) == expected[4:]
    stream.load_state_dict(stream.state_dict())
    np.random.seed(1)  # noqa: NPY002 -- as above
    assert list(stream(9)) == expected


@pytest.mark.parametrize("n", range(22))
def test_cycle_goes_on_from_any_place_and_iterate_ends_the_epoch(n):
    stream = ChainMux([Streamer(noise, 7, RNG)], random_state=0)
    expected = list(stream.cycle(21))
    state = state_after(stream, n, cycle=True)
    assert list(going_on(stream, state, 21, cycle=True)) == expected[n:]
    end = math.ceil(n / 7) * 7 or 7  # after its last item an epoch has not ended yet
    assert list(going_on(stream, state)) == expected[n:end]


def test_cycle_goes_on_from_a_state_of_iterate():
    stream = ChainMux([Streamer(noise, 7, RNG)], random_state=0)
    for n in (3, 7):
        assert list(going_on(stream, state_after(stream, n), 21, cycle=True)) == list(stream.cycle(21))[n:]


@pytest.mark.parametrize("cycle", [False, True])
def test_max_iter_counts_from_the_very_beginning(cycle):
    stream = Streamer(numbers, 6)
    expected = list(stream(10, cycle))
    state = state_after(stream, 4, 10, cycle)
    assert list(going_on(stream, state, 10, cycle)) == expected[4:]
    assert stream.state_dict()["state"] is None
    for less in (0, 1, 4):
        assert list(going_on(stream, state, less, cycle)) == []
        assert stream.state_dict()["state"] is None
        assert list(stream(2)) == [0, 1]


def test_max_iter_of_a_streamer_of_a_streamer_counts_from_the_very_beginning():
    for stream in (
        Streamer(Streamer(numbers, 6), max_iter=10, cycle=True),
        Streamer(Streamer(numbers, 6).cycle, 10),
        Streamer(Streamer(Streamer(numbers, 6), 5), 9, cycle=True),
    ):
        expected = list(stream)
        for n in range(len(expected)):
            assert list(going_on(stream, state_after(stream, n))) == expected[n:]


# What a state is of


def assert_pure(value):
    """Check that a value is of what any JSON library takes, also one that knows 64-bit numbers alone."""
    if type(value) is dict:
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if type(value) is list:
        for entry in value:
            assert_pure(entry)
    elif type(value) is int:
        assert abs(value) < 2**63
    elif type(value) is float:
        assert math.isfinite(value)
    else:
        assert value is None or type(value) in (str, bool)


SEEDS = {
    "none": None,
    "int": 7,
    "large int": 2**200,
    "numpy": np.uint64(2**63),
    "sequence": np.random.SeedSequence(5, spawn_key=(np.int64(4), 2**70)),
    "sequence of numpy": np.random.SeedSequence(np.int64(5)),
    "sequence of many": np.random.SeedSequence([1, 2**100]),
    "sequence of an array": np.random.SeedSequence(np.array([1, 2])),
    "spawned": np.random.SeedSequence(2**90).spawn(2)[1],
    "generator": np.random.default_rng(0),
    "state": np.random.RandomState(0),
}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_a_state_is_of_what_json_knows_whatever_the_seed(seed):
    stream = noises(ChainMux, random_state=seed)
    items = begun(stream, 5)
    state = items.state_dict()
    assert_pure(state)
    assert list(going_on(stream, json.loads(json.dumps(state)), 20)) == list(islice(items, 15))


EMPTY = [Streamer(range(0)), Streamer(noise, 5, RNG), Streamer(noise, 3, RNG)]


@pytest.mark.parametrize("n", [0, 1, 4, 9])
@pytest.mark.parametrize(
    "stream",
    [
        Streamer(range(9)),
        Streamer(countdown.__wrapped__, 20, np.int64(2)),
        *(
            StochasticMux(EMPTY * 3, np.int64(2), rate, weights, mode, prune, dist=dist)
            for rate, dist in [
                (None, "poisson"),
                (2.5, "poisson"),
                (np.float32(2), "constant"),
                (3, "binomial"),
            ]
            for weights in (None, np.arange(9, dtype=np.float32))
            for mode in ("with_replacement", "single_active", "exhaustive")
            for prune in (True, False)
        ),
        ShuffledMux(EMPTY, np.array([1, 2, 3])),
        *(RoundRobinMux(EMPTY, mode) for mode in ("exhaustive", "cycle", "permuted_cycle")),
        *(ChainMux(EMPTY, mode) for mode in ("exhaustive", "cycle")),
        Streamer(buffer_stream, Streamer(map, lambda i: {"i": i}, ShuffledMux(EMPTY)), 1),
        Streamer(pescador.cache, ShuffledMux(EMPTY), 2, random_state=RNG),
    ],
    ids=repr,
)
def test_a_state_is_of_what_json_knows_whatever_the_stream(stream, n):
    items = stream()
    list(islice(items, n))
    assert_pure(items.state_dict())


def test_a_state_of_100_active_streams_of_30_000_is_small_and_makes_little_again():
    made = count()

    def sample(i, rng):
        while True:
            next(made)
            yield i

    stream = StochasticMux([Streamer(sample, i, RNG) for i in range(30_000)], 100, 8, random_state=0)
    state = state_after(stream, 5000)
    assert len(json.dumps(state)) <= 5000
    n_given = sum(n for _, n in state["state"]["source"]["streams"])
    n_before = next(made)
    list(islice(going_on(stream, state), 2000))
    assert next(made) - n_before - 1 <= n_given + 2000 < 2500


def test_with_start_nothing_is_made_again():
    made = count()

    def sample(n, start):
        for i in range(start, n):
            next(made)
            yield i

    stream = StochasticMux([Streamer(sample, 100, START) for _ in range(300)], 20, 8, random_state=0)
    state = state_after(stream, 500)
    n_before = next(made)
    list(islice(going_on(stream, state), 200))
    assert next(made) - n_before - 1 == 200


# What is refused


def another(values):
    yield from values


def maker(n):
    """Return streamers of functions that have other names, as `streamable` makes them."""

    @streamable
    def one(n):
        yield from range(n)

    @streamable
    def two(n):
        yield from range(n)

    return one(n), two(n)


ABC, CBA, AB = (Streamer(another, text) for text in ("abc", "cba", "ab"))
TREES = {
    "function": (Streamer(numbers, 5), Streamer(noise, 5)),
    "decorated function": maker(5),
    "argument": (Streamer(numbers, 5), Streamer(numbers, 6)),
    "keyword": (Streamer(numbers, n=5), Streamer(numbers, n=6)),
    "name of a keyword": (Streamer(noise, 5, rng=RNG), Streamer(numbers, 5, start=RNG)),
    "argument of a partial": (Streamer(partial(numbers, 5)), Streamer(partial(numbers, 6))),
    "stream below a partial": (Streamer(partial(another, ABC)), Streamer(partial(another, CBA))),
    "method": (Streamer(ABC.iterate, 5), Streamer(ABC.cycle, 5)),
    "stream of a method": (Streamer(ABC.cycle, 5), Streamer(CBA.cycle, 5)),
    "stream among the arguments": (Streamer(map, str, ABC), Streamer(map, str, CBA)),
    "stream in a list": (Streamer(another, [ABC, 1]), Streamer(another, [CBA, 1])),
    "data": (Streamer([1, 2, 3]), Streamer([1, 2, 4])),
    "shape": (Streamer(another, np.zeros(3)), Streamer(another, np.zeros(4))),
    "dtype": (Streamer(another, np.zeros(3, "f")), Streamer(another, np.zeros(3, "d"))),
    "limit": (Streamer(ABC, 5), Streamer(ABC, 6)),
    "mux": (ChainMux([ABC]), RoundRobinMux([ABC])),
    "number of streams": (ChainMux([ABC]), ChainMux([ABC, ABC])),
    "order of files": (
        ChainMux([Streamer(another, f"/data/{name}.npy") for name in "abc"]),
        ChainMux([Streamer(another, f"/data/{name}.npy") for name in "acb"]),
    ),
    "mode": (RoundRobinMux([ABC]), RoundRobinMux([ABC], "cycle")),
    "n_active": (StochasticMux([ABC], 1, 4), StochasticMux([ABC], 2, 4)),
    "rate": (StochasticMux([ABC], 1, 4), StochasticMux([ABC], 1, 5)),
    "dist": (StochasticMux([ABC], 1, 4), StochasticMux([ABC], 1, 4, dist="constant")),
    "prune": (StochasticMux([ABC], 1, 4), StochasticMux([ABC], 1, 4, prune_empty_streams=False)),
    "weights": (ShuffledMux([ABC, AB], [1, 2]), ShuffledMux([ABC, AB], [2, 1])),
    "no weights": (ShuffledMux([ABC, AB], [1, 1]), ShuffledMux([ABC, AB])),
    "deep in the tree": (
        RoundRobinMux([ChainMux([ABC, Streamer(map, str, AB)])]),
        RoundRobinMux([ChainMux([ABC, Streamer(map, repr, AB)])]),
    ),
}


@pytest.mark.parametrize(("one", "other"), TREES.values(), ids=TREES)
def test_a_state_of_another_stream_is_refused(one, other):
    state = one.state_dict()
    one.load_state_dict(state)
    with pytest.raises(PescadorError, match=r"not of .*, but of a stream with another .* same order\?"):
        other.load_state_dict(state)


def test_a_state_that_was_refused_changes_nothing():
    stream = Streamer(numbers, 5)
    state = state_after(stream, 3)
    stream.load_state_dict(state)
    with pytest.raises(PescadorError):
        stream.load_state_dict(Streamer(numbers, 6).state_dict())
    assert stream.state_dict() == state
    assert list(stream) == [3, 4]


SAME = {
    "in another folder": (Streamer(another, "/data/a.npy"), Streamer(another, "D:\\data\\a.npy")),
    "of other values": (Streamer(another, np.zeros(3)), Streamer(another, np.ones(3))),
    "in the background": (ABC, ParallelStreamer(ABC, "thread")),
    "with some of it in the background": (ChainMux([ABC]), ChainMux([ParallelStreamer(ABC, "thread")])),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_what_may_differ_is_not_looked_at(one, other):
    other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("name", [name for name in SEEDS if name not in ("none", "int")])
def test_a_state_of_another_seed_is_refused(name):
    for seeds in ((7, SEEDS[name]), (SEEDS[name], 7)):
        for depth in range(2):
            one, other = (noises(random_state=seed) for seed in seeds)
            if depth:
                one, other = RoundRobinMux([one], random_state=1), RoundRobinMux([other], random_state=1)
            one.load_state_dict(state_after(one, 3))
            with pytest.raises(PescadorError, match="another random_state"):
                other.load_state_dict(state_after(one, 3))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("FORM", r"pescador 4.*another form \(1, here 2\)\. Go on with that version"),
        ("SEQUENCES", r"pescador 4.*another sequence \(version 1, here 2\).*Go on with that version"),
    ],
)
def test_a_state_of_another_version_is_refused(version, message, monkeypatch):
    stream = Streamer(numbers, 5)
    state = stream.state_dict()
    monkeypatch.setattr(checkpoint, version, 2)
    with pytest.raises(PescadorError, match=message):
        stream.load_state_dict(state)


def test_another_numpy_is_a_warning(caplog):
    stream = Streamer(numbers, 5)
    state = state_after(stream, 2)
    with caplog.at_level(logging.WARNING, "pescador"):
        stream.load_state_dict({**state, "numpy": ".".join(np.__version__.split(".")[:2]) + ".99"})
        assert not caplog.messages
        stream.load_state_dict({**state, "numpy": "0.9.1"})
    assert "NumPy 0.9.1" in caplog.text
    assert list(stream) == [2, 3, 4]


@pytest.mark.parametrize(
    "state", [None, 5, "{}", [], {}, {"epoch": 3}, {"form": 1, "tree": "", "state": None}, Streamer("abc")]
)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(PescadorError, match=r"the dict that state_dict\(\) returned, not"):
        Streamer("abc").load_state_dict(state)


def endless():
    return (i for i in count())


OPEN = {
    "source": lambda: Streamer(endless()),
    "limited": lambda: Streamer(Streamer(endless()), 20),
    "in a mux": lambda: ChainMux([Streamer(endless())]),
    "of a chain": lambda: ShuffledMux([ChainMux([endless()])]),
    "below a stateless map": lambda: Streamer(map, str, Streamer(endless())),
    "below a generator": lambda: Streamer(another, Streamer(endless())),
    "in a mux below a generator": lambda: Streamer(another, ChainMux([[1, 2], Streamer(endless())])),
    "argument": lambda: Streamer(another, endless()),
    "keyword": lambda: Streamer(another, values=endless()),
    "argument beside a stream": lambda: Streamer(zip, ABC, endless()),
    "argument in a mux": lambda: RoundRobinMux([Streamer(another, endless())]),
    "iterator over a stream": lambda: Streamer(another, Streamer(constant, 1).iterate()),
}


@pytest.mark.parametrize("make", OPEN.values(), ids=OPEN)
@pytest.mark.parametrize("backend", [None, "serial", "thread"])
def test_a_stream_that_reads_from_an_open_iterator_has_no_state(make, backend):
    message = r"cannot be saved where it stands: an open iterator .*Streamer\(buffer_stream, stream, 16\)"
    stream = make() if backend is None else ParallelStreamer(make(), backend)
    items = begun(stream, 2)
    with pytest.raises(PescadorError, match=message):
        items.state_dict()
    items.close()
    with pytest.raises(PescadorError, match=message):
        stream.state_dict()
    if backend:
        stream.close()


def test_several_workers_refuse_an_open_iterator_too():
    with ParallelStreamer(RoundRobinMux([Streamer(endless()), Streamer(endless())]), "thread", 2) as stream:
        items = begun(stream, 2)
        with pytest.raises(PescadorError, match="cannot be saved where it stands"):
            items.state_dict()
        items.close()


def test_iterators_that_begin_anew_or_were_not_opened_are_no_obstacle():
    stream = Streamer(another, iter([1, 2, 3]))  # each opening gets a copy
    assert list(going_on(stream, state_after(stream, 1))) == [2, 3]
    stream = ChainMux([ABC, Streamer(endless())])
    assert list(islice(going_on(stream, state_after(stream, 2)), 3)) == ["c", 0, 1]


def test_a_stream_that_has_raised_has_no_state_until_it_begins_again():
    stream = Streamer(failing, 3, ZeroDivisionError)
    state = state_after(stream, 2)
    items = iter(stream)
    with pytest.raises(ZeroDivisionError):
        list(items)
    for who in (items, stream):
        with pytest.raises(PescadorError, match=r"has raised.*go on from a state that was saved before"):
            who.state_dict()
    assert next(going_on(stream, state)) == 2
    begun(stream, 1).state_dict()


@pytest.mark.parametrize("make", [iter, Streamer.cycle])
def test_so_has_one_that_was_interrupted_while_it_made_an_item(make):
    stream = ChainMux([Streamer(failing, 3, KeyboardInterrupt)])
    items = make(stream)
    with pytest.raises(KeyboardInterrupt):
        list(items)
    with pytest.raises(PescadorError, match="was interrupted while it made an item"):
        stream.state_dict()


def test_an_interrupt_between_two_items_does_no_harm():
    stream = Streamer(numbers, 5)

    def train():
        for item in stream:
            if item == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert list(going_on(stream, stream.state_dict())) == [3, 4]


def asking(ask):
    """A generator that asks for a state while it runs."""
    for i in count():
        if i == 2:
            ask()
        yield i


@pytest.mark.parametrize(
    "make",
    [
        lambda ask: Streamer(asking, ask),
        lambda ask: ChainMux([Streamer(Streamer(asking, ask))]),
        lambda ask: Streamer(map, lambda i: ask() if i == 2 else i, Streamer(numbers, 9)),
        lambda ask: Streamer(another, Streamer(asking, ask)),
        lambda ask: ParallelStreamer(RoundRobinMux([Streamer(asking, ask)]), "serial", 2),
    ],
)
@pytest.mark.parametrize("cycle", [False, True])
def test_a_stream_that_runs_cannot_be_asked(make, cycle):
    found = []

    def ask():
        for who in (stream, items):
            with pytest.raises(PescadorError, match=r"between two items only.*on another thread"):
                who.state_dict()
            found.append(who)

    stream = make(ask)
    items = stream(cycle=cycle)
    list(islice(items, 4))
    assert found == [stream, items]
    items.state_dict()
    items.close()


def test_another_thread_cannot_ask_while_an_item_is_made():
    running, asked = threading.Event(), threading.Event()

    def slow():
        yield 0
        running.set()
        asked.wait()
        yield 1

    stream = Streamer(slow)
    items = begun(stream, 1)
    thread = threading.Thread(target=next, args=(items,))
    thread.start()
    running.wait()
    with pytest.raises(PescadorError, match="between two items only"):
        stream.state_dict()
    asked.set()
    thread.join()
    assert stream.state_dict()["state"] == {"n": 2}


def test_a_stream_among_the_arguments_of_another_has_no_state_of_its_own():
    def asking(inner):
        items = begun(inner, 1)
        for who in (inner, items):
            with pytest.raises(PescadorError, match=r"part of that one's: ask the outermost stream"):
                who.state_dict()
        yield "asked"

    assert list(Streamer(asking, ABC)) == ["asked"]


def test_an_iterator_that_is_over_and_has_lost_its_stream_says_so():
    items = iter(Streamer(numbers, 3))
    assert next(items) == 0
    items.state_dict()
    assert list(items) == [1, 2]
    with pytest.raises(PescadorError, match="this iterator is over, and its stream is gone"):
        items.state_dict()


@pytest.mark.parametrize("where", ["alone", "in a mux", "below a map", "thread", "shm", "two workers"])
def test_a_stream_that_ends_before_it_stood_where_it_was_saved_raises(where, tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\n" * 9)
    stream = Streamer(lines, path)
    if where != "alone":
        stream = Streamer(map, str.upper, stream) if where == "below a map" else RoundRobinMux([stream] * 2)
    state = state_after(stream, 8)
    path.write_text("a\n" * 2)
    if where in ("thread", "shm"):
        stream = ParallelStreamer(stream, where)
    if where == "two workers":
        stream = ParallelStreamer(stream, "shm", 2)
    with pytest.raises(PescadorError, match=r"lines.* had given \d items .* ends after 2.*same items again"):
        list(going_on(stream, state))
    if isinstance(stream, ParallelStreamer):
        stream.close()


def lines(path):
    yield from path.read_text().splitlines()


# Copies


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))]
)
def test_copies_begin_anew(copied):
    stream = Streamer(numbers, 5)
    stream.load_state_dict(state_after(stream, 3))
    assert list(copied(stream)) == [0, 1, 2, 3, 4]
    assert list(stream) == [3, 4]
    items = begun(stream, 2)
    assert copied(stream).state_dict()["state"] is None
    assert list(going_on(copied(stream), items.state_dict())) == [2, 3, 4]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_iterator_cannot_be_copied(copied):
    with pytest.raises(TypeError, match=r"cannot pickle an open iterator .* state_dict\(\)"):
        copied(iter(Streamer(numbers, 5)))


def test_a_broken_off_iteration_holds_nothing_open():
    source = Counting()
    stream = RoundRobinMux([source, source])
    for item in stream:
        if item:
            break
    assert source.running == 0
    assert stream.state_dict()["state"]["n"] == 3
