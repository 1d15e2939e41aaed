"""Where items came from, and the same items again."""

import gc
import os
import pickle
import threading
import weakref
from itertools import count, islice

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pescador
from pescador import (
    RNG,
    START,
    BaseMux,
    ChainMux,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    replay,
)
from pescador.backends.worker import open_stream

from .laws import test_laws_resuming, test_laws_serial
from .laws.test_laws_resuming import hurry, in_pieces, through_json
from .laws.test_laws_workers import assert_same, workers
from .streams import noise, numbers

N = 40  # items looked at; many trees are endless

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))

trees = test_laws_resuming.trees | test_laws_serial.trees
rooted = st.builds(lambda tree: ChainMux([tree], random_state=0), trees)


def tagged(i, n, rng):
    """Items that tell of which stream of its mux they are, and which of its items."""
    for k in range(n):
        yield i, k, rng.random()


def members(*lengths):
    return [Streamer(tagged, i, n, RNG) for i, n in enumerate(lengths)]


def batched(stream, n):
    items = iter(stream)
    while batch := tuple(islice(items, n)):
        yield batch


def with_origins(items, n=N):
    """Return the first items, and the origin of each, as a text; each is made again."""
    found = []
    for item in islice(items, n):
        origin = items.origin()
        assert_same(replay(origin), item)
        found.append((item, str(origin)))
    return found


# Laws


@settings(max_examples=EXAMPLES or 200)
@given(trees, st.booleans())
def test_every_item_of_a_tree_is_made_again_from_its_origin(tree, cycle):
    items = tree(N, cycle=cycle)
    for item in items:
        origin = items.origin()
        assert_same(replay(origin), item)
        assert_same(replay(pickle.loads(pickle.dumps(origin))), item)


@settings(max_examples=EXAMPLES or 100)
@given(rooted, st.booleans())
def test_to_ask_for_origins_changes_no_item(tree, cycle):
    np.random.seed(0)  # noqa: NPY002 -- it must not be drawn from
    found = with_origins(tree(N, cycle=cycle))
    assert_same([item for item, _ in found], list(tree(N, cycle=cycle)))
    assert np.random.randint(1000) == 684  # noqa: NPY002 -- the first after that seed


@settings(max_examples=EXAMPLES or 100)
@given(rooted, st.integers(0, N), st.booleans())
def test_after_a_resume_origins_are_those_without_one(tree, cut, cycle):
    expected = with_origins(tree(N, cycle=cycle))
    items = tree(N, cycle=cycle)
    first = list(islice(items, cut))
    tree.load_state_dict(through_json(items.state_dict()))
    if len(first) == cut:  # else it has ended, and begins anew
        assert_same(with_origins(tree(N, cycle=cycle)), expected[cut:])


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("backend", ["serial", "thread", "shm"])
@pytest.mark.parametrize("seconds", [0, 1.0], ids=["with snapshots", "without"])
def test_origins_are_the_same_wherever_streams_run(backend, n, seconds, monkeypatch):
    monkeypatch.setattr(open_stream, "SNAPSHOT_SECONDS", seconds)
    monkeypatch.setattr(open_stream, "SNAPSHOT_SHARE", 1e9)
    options = {"ring_bytes": 1 << 20} if backend == "shm" else {}
    with workers(backend, n, **options) as parallel:
        if not seconds:
            list(parallel(RoundRobinMux([Streamer(hurry)] * n), None, None))

        @settings(max_examples=EXAMPLES or 25)
        @given(rooted, st.sampled_from([None, 1, 7]), st.booleans(), st.integers(0, N))
        def same(tree, prefetch, cycle, cut):
            expected = with_origins(tree(N, cycle=cycle))
            stream = parallel(tree, prefetch, None)
            items = stream(N, cycle=cycle)
            first = with_origins(items, cut)
            if len(first) == cut:
                stream.load_state_dict(items.state_dict())
                first += with_origins(stream(N, cycle=cycle))
            items.close()
            assert_same(first, expected)

        same()


# Muxes

MUXES = {
    "chain": lambda streams: ChainMux(streams),
    "chain, cycle": lambda streams: ChainMux(streams, "cycle"),
    "chain of a function": lambda streams: ChainMux(Streamer(iter_all, streams), "cycle"),
    "chain of a generator": lambda streams: ChainMux(iter_all(streams), "cycle"),
    "round robin": lambda streams: RoundRobinMux(streams),
    "round robin, cycle": lambda streams: RoundRobinMux(streams, "cycle"),
    "round robin, permuted": lambda streams: RoundRobinMux(streams, "permuted_cycle"),
    "shuffled": lambda streams: ShuffledMux(streams),
    "shuffled, weights": lambda streams: ShuffledMux(streams, [1, 5, 2, 3]),
    **{
        f"stochastic, {mode}, {dist}, rate {rate}, weights {weights}": (
            lambda streams, mode=mode, dist=dist, rate=rate, weights=weights: StochasticMux(
                streams, 2, rate, weights, mode, dist=dist
            )
        )
        for mode in ("with_replacement", "single_active", "exhaustive")
        for dist in ("poisson", "constant", "binomial")
        for rate in (None, 3)
        for weights in (None, [1, 5, 0, 3])
    },
}


def iter_all(streams):
    yield from streams


every_mux = pytest.mark.parametrize("mux", MUXES.values(), ids=MUXES)


@every_mux
def test_the_index_is_that_of_the_stream(mux):
    items = mux(members(3, 0, 7, 2)).iterate(60)
    for i, k, x in items:
        origin = items.origin()
        assert [step.index for step in origin.way] == [None, i]
        assert origin.item == k
        assert origin.way[1].name == f"Streamer(tagged, {i}, {[3, 0, 7, 2][i]}, pescador.RNG)"
        assert replay(origin) == (i, k, x)


@every_mux
def test_each_activation_has_its_own_key(mux):
    items = mux(members(3, 0, 7, 2)).cycle(100)
    opened = {}
    for item in items:
        origin = items.origin()
        key = (origin.way[0].epoch, origin.way[1].activation)
        opened.setdefault(key, []).append(item)
    for found in opened.values():  # of one opening, each once and in order
        assert [item[:2] for item in found] == [(found[0][0], k) for k in range(len(found))]


@every_mux
@pytest.mark.parametrize("n", [1, 2])
def test_indices_are_right_below_a_mux_and_on_workers(mux, n):
    inner = [mux(members(3, 0, 7, 2)), Streamer(mux(members(1, 4, 2, 2)), 5)]
    if "chain of a generator" in mux.__code__.co_names:
        n = 2
    with ParallelStreamer(RoundRobinMux(inner, "cycle"), "thread", n) as stream:
        try:
            items = stream.iterate(40)
            for i, k, x in items:
                origin = items.origin()
                assert (origin.way[-1].index, origin.item) == (i, k)
                assert replay(origin) == (i, k, x)
        finally:
            items.close()


def test_weights_that_are_changed_change_no_way():
    for mux in (
        ShuffledMux(members(50, 50, 50), random_state=0),
        StochasticMux(members(50, 50, 50), 2, 4, random_state=0),
        StochasticMux(members(50, 50, 50), 2, 4, mode="single_active", random_state=0),
    ):
        items = mux.iterate(60)
        for n, (i, k, x) in enumerate(items):
            if n % 10 == 5:
                mux.weights = [1, n, 2]
            origin = items.origin()
            assert (origin.way[1].index, origin.item) == (i, k)
            assert replay(origin) == (i, k, x)


class Pairs(BaseMux):
    """Two items of each stream in turn."""

    def samples(self):
        for number in count():
            index = number % self.n_streams
            self.last = index, (number,), self.open_stream(index, number, max_iter=2)
            yield from self.last[2]


class TellingPairs(Pairs):
    def last_stream(self):
        return self.last


class Doubled(TellingPairs):
    """It changes items, so they are not those of its streams."""

    def samples(self):
        for i, k, x in super().samples():
            yield i, 2 * k, x


class FirstMux(BaseMux):
    """Opens a stream by its index alone."""

    def samples(self):
        self.stream = self.open_stream(1)
        yield from self.stream

    def last_stream(self):
        return 1, (), self.stream


@pytest.mark.parametrize(
    ("kind", "length"), [(Pairs, 2), (TellingPairs, 3), (Doubled, 2), (FirstMux, 3)], ids=lambda x: str(x)
)
@pytest.mark.parametrize("backend", [None, "thread"])
def test_the_way_ends_at_a_mux_of_ones_own_unless_it_says_more(kind, length, backend):
    stream = ChainMux([kind(members(3, 5, 7), random_state=np.random.default_rng(0))])
    if backend:
        stream = ParallelStreamer(stream, backend)
    for _ in range(2):
        items = stream.iterate(9)
        found = []
        for item in items:
            origin = items.origin()
            assert len(origin.way) == length
            assert replay(origin) == item
            assert replay(pickle.loads(pickle.dumps(origin))) == item
            found.append(origin.way[-1].index)
        assert found == ([0] * len(found) if length == 2 else [item[0] for item in stream.iterate(9)])
    if backend:
        stream.close()


# Other streams


def test_a_map_is_a_leaf():
    mux = ShuffledMux(members(5, 6), random_state=0)
    stream = RoundRobinMux([Streamer(batched, mux, 3), Streamer(batched, mux, 2)], random_state=0)
    items = stream.iterate(7)
    for item in items:
        origin = items.origin()
        assert [step.index for step in origin.way] == [None, len(item) == 2]
        assert replay(origin) == item


def test_epochs_of_cycle_and_of_streams_of_streams_are_steps():
    mux = RoundRobinMux(members(2, 1), random_state=0)
    for stream, steps in (
        (mux.cycle(), [(None, 2), (0, 0)]),
        (Streamer(mux, cycle=True).iterate(), [(None, 0), (None, 2), (0, 0)]),
        (Streamer(Streamer(mux), cycle=True).iterate(), [(None, 0), (None, 2), (None, 0), (0, 0)]),
        (Streamer(mux.cycle).iterate(), [(None, 0), (None, 2), (0, 0)]),
        (ParallelStreamer(mux, "serial").cycle(), [(None, 2), (0, 0)]),
        (ChainMux([Streamer(mux.iterate)]).cycle(), [(None, 2), (0, 0), (None, 0), (0, 0)]),
        (ChainMux([ParallelStreamer(mux, "serial")]).cycle(), [(None, 2), (0, 0), (0, 0)]),
    ):
        item = list(islice(stream, 7))[-1]
        origin = stream.origin()
        assert [(step.index, step.epoch) for step in origin.way] == steps
        assert origin.item == 0
        assert replay(origin) == item


def test_a_stream_whose_way_was_wrapped_by_its_author_is_a_leaf():
    class Negated(Streamer):
        def _activate(self):
            super()._activate()
            self.stream_ = (-item for item in self.stream_)

    items = Negated(Streamer(range, 5)).iterate()
    assert list(islice(items, 3)) == [0, -1, -2]
    assert len(items.origin().way) == 1
    assert replay(items.origin()) == -2


def test_an_iterator_that_a_generator_opens_tells_origins_from_there_on():
    def told(stream):
        for items in (stream.iterate(), stream.cycle(8), stream.iterate()):
            for item in items:
                yield item, replay(items.origin()), str(items.origin())

    mux = ChainMux([Streamer(told, RoundRobinMux(members(3, 2)))], random_state=0)
    found = list(mux)
    assert [item for item, _, _ in found] == [again for _, again, _ in found]
    assert len({item for item, _, _ in found}) == len(found) == 18
    assert found[3][2].splitlines()[0] == "<RoundRobinMux of 2 streamers>"


def test_a_stream_that_takes_start_is_not_made_from_the_beginning():
    begun = []

    def seek(start):
        begun.append(start)
        yield from range(start, 1000)

    items = Streamer(seek, START).iterate()
    assert list(islice(items, 500))[-1] == 499
    assert replay(items.origin()) == 499
    assert begun == [0, 499]


def test_a_leaf_on_a_worker_is_not_opened_for_its_origin():
    opened = []

    def source(i):
        opened.append(i)
        yield from range(9)

    with ParallelStreamer(RoundRobinMux([Streamer(source, i) for i in range(2)]), "thread", 2) as stream:
        items = stream.iterate()
        assert list(islice(items, 7)) == [0, 0, 1, 1, 2, 2, 3]
        assert sorted(opened) == [0, 1]
        assert (items.origin().way[1].index, items.origin().item) == (0, 3)
        assert sorted(opened) == [0, 1]
        items.close()


class Thing:
    """An item of which there may be weak references."""


def things(n):
    for _ in range(n):
        yield Thing()


@every_mux
def test_to_ask_keeps_no_stream_and_no_item(mux):
    items = mux([Streamer(things, n) for n in (3, 0, 7, 2)]).iterate(30)
    alive = weakref.WeakSet()
    for item in items:
        items.origin()
        alive.add(item)
        del item
        assert not alive
    items = mux(members(3, 0, 7, 2)).iterate()
    next(items)
    items.origin()
    gone = weakref.ref(items._place.active)
    items.close()
    gc.collect()  # which Python 3.10 needs, also if nobody asked
    assert gone() is None


def test_no_workers_are_started_for_an_origin():
    nested = ParallelStreamer(RoundRobinMux([ParallelStreamer(ChainMux(members(3, 2)))], random_state=0))
    items = nested.iterate()
    mine = psutil.Process().children(recursive=True)
    assert list(items)[4][:2] == (1, 1)
    started = {p.pid for p in psutil.Process().children(recursive=True)} - {p.pid for p in mine}
    items = nested.iterate()
    for item in items:
        assert replay(items.origin()) == item
        assert items.origin().way[-1].index == item[0]
    now = {p.pid for p in psutil.Process().children(recursive=True)} - {p.pid for p in mine}
    assert now == started
    nested.close()


# What is told


def test_the_text_shows_the_way_the_number_and_the_seed():
    mux = RoundRobinMux(
        [StochasticMux(members(2, 3), 1, None, random_state=5), "ab"], "cycle", random_state=0
    )
    items = mux.cycle()
    list(islice(items, 5))
    origin = items.origin()
    assert str(origin).splitlines() == [
        "<RoundRobinMux of 2 streamers>",
        "stream 0, activation (0, 0): <StochasticMux of 2 streamers>",
        f"stream {origin.way[2].index}, activation 0: {origin.stream!r}",
        "item 2, under Seed(5, (3, 0, 0, 3, 0))",
    ]


def test_what_no_random_state_governs_is_made_again_too():
    items = ShuffledMux([Streamer(noise, 99, RNG)] * 3).iterate()
    for item in islice(items, 20):
        assert replay(pickle.loads(pickle.dumps(items.origin()))) == item
    items = Streamer(numbers, 3).iterate()
    next(items)
    assert replay(items.origin()) == 0


def test_errors_say_what_to_do():
    stream = Streamer(numbers, 2)
    items = stream.iterate()
    with pytest.raises(PescadorError, match="no item was delivered yet"):
        items.origin()
    next(items)
    stream.load_state_dict(items.state_dict())
    with pytest.raises(PescadorError, match="no item was delivered yet"):
        stream.iterate().origin()
    items.close()
    with pytest.raises(PescadorError, match=r"is over.*before you ask"):
        items.origin()
    items = stream.iterate()
    assert list(items) == [0, 1]
    with pytest.raises(PescadorError, match="is over"):
        items.origin()
    items = stream.iterate(1)
    next(items)
    assert items.origin().item == 0
    for function in (batched, pescador.buffer_stream):  # the other one raises when it is called
        items = Streamer(function, 3, 3).iterate()
        with pytest.raises((TypeError, PescadorError)):
            next(items)
        with pytest.raises(PescadorError, match="is over"):
            items.origin()


def test_inside_its_own_generator_there_is_no_origin():
    def curious():
        yield 0
        items.origin()

    items = Streamer(curious).iterate()
    next(items)
    with pytest.raises(PescadorError, match="inside its generator"):
        next(items)


def test_the_origin_of_what_an_open_iterator_gave_is_told_but_not_made_again():
    one = iter("abc")
    items = RoundRobinMux([one, "xyz"]).iterate()
    list(islice(items, 3))
    origin = items.origin()
    assert (origin.way[1].index, origin.item) == (0, 1)
    with pytest.raises(PescadorError, match="open iterator"):
        replay(origin)
    assert next(one) == "c"


def test_on_a_worker_no_open_iterator_is_taken_from():
    one = iter("abcdef")
    with ParallelStreamer(RoundRobinMux([one, "xyz"]), "thread", prefetch=1) as stream:
        items = stream.iterate()
        next(items)
        with pytest.raises(PescadorError, match="open iterator"):
            items.origin()
        assert next(items) == "x"
        assert next(items) == "b"


def test_a_stream_that_gives_less_now_is_told():
    lengths = [5]

    def shrinking():
        yield from range(lengths[0])

    items = Streamer(shrinking).iterate()
    list(islice(items, 4))
    origin = items.origin()
    for lengths[0] in (3, 2):
        with pytest.raises(PescadorError, match=r"ends after (2|3 items now)"):
            replay(origin)


def test_where_workers_are_gone_the_origin_is_known_as_long_as_the_place_is():
    stream = ParallelStreamer(RoundRobinMux(members(5, 5), random_state=0), "serial")
    items = stream.iterate()
    item = next(items)
    stream.close()
    assert replay(items.origin()) == item


def test_several_threads_ask_each_for_its_own():
    mux = StochasticMux(members(9, 9, 9), 2, 3, random_state=0)
    found = {}

    def ask(name):
        items = mux.iterate(50)
        found[name] = with_origins(items, 50)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == found[2]


def test_a_start_from_a_state_counts_all_items():
    stream = Streamer(numbers, 9)
    assert in_pieces([stream], [4]) == list(range(9))
    items = stream.iterate()
    list(islice(items, 4))
    stream.load_state_dict(items.state_dict())
    items = stream.iterate()
    assert next(items) == 4
    assert items.origin().item == 4
