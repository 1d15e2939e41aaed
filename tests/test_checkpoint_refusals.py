"""What has no state, and which states a stream refuses, with what message."""

import logging
import threading
from functools import partial
from itertools import count, islice

import numpy as np
import pytest

from pescador import (
    RNG,
    ChainMux,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    checkpoint,
    streamable,
)

from .streams import constant, failing, noise, numbers
from .test_checkpoint import SEEDS, begun, going_on, noises, state_after

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
