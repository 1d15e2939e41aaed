"""A Streamer is callable, so a Streamer of one is that stream, called: limited, and perhaps cycled."""

import copy
import pickle

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
    buffer_stream,
)

from .kinds import every_backend
from .streams import Counting, noise, numbers

FIVE = Streamer(numbers, 5)
CALLS = {
    "max_iter": (Streamer(FIVE, max_iter=3), [0, 1, 2]),
    "by position": (Streamer(FIVE, 3), [0, 1, 2]),
    "max_items": (Streamer(FIVE, max_items=3), [0, 1, 2]),
    "a float": (Streamer(FIVE, 3.0), [0, 1, 2]),
    "a number of NumPy": (Streamer(FIVE, np.int16(3)), [0, 1, 2]),
    "nothing": (Streamer(FIVE, max_iter=0), []),
    "no limit": (Streamer(FIVE, max_iter=None, cycle=False), [0, 1, 2, 3, 4]),
    "more than there is": (Streamer(FIVE, max_iter=9), [0, 1, 2, 3, 4]),
    "cycle": (Streamer(FIVE, max_iter=7, cycle=True), [0, 1, 2, 3, 4, 0, 1]),
    "cycle by position": (Streamer(FIVE, 7, True), [0, 1, 2, 3, 4, 0, 1]),
    "cycle over nothing": (Streamer(Streamer(()), cycle=True), []),
    "nested": (Streamer(Streamer(Streamer(FIVE, 2), cycle=True), 5), [0, 1, 0, 1, 0]),
    "of a mux": (Streamer(ChainMux([FIVE, FIVE]), max_iter=7), [0, 1, 2, 3, 4, 0, 1]),
    "of a cycled mux": (Streamer(ChainMux([[1], [2]]), 5, cycle=True), [1, 2, 1, 2, 1]),
    "below a mux": (ChainMux([Streamer(FIVE, max_iter=2)] * 2), [0, 1, 0, 1]),
    "below a map": (Streamer(list, Streamer(FIVE, max_iter=2)), [0, 1]),
    "bound method": (Streamer(FIVE.cycle, 7), [0, 1, 2, 3, 4, 0, 1]),
    "bound method of a mux": (Streamer(ChainMux([FIVE]).iterate, max_iter=2), [0, 1]),
}
every_call = pytest.mark.parametrize(("stream", "items"), CALLS.values(), ids=CALLS)


@every_call
def test_it_is_the_stream_that_its_arguments_call(stream, items):
    assert list(stream) == list(stream()) == items
    assert list(stream.iterate(1)) == items[:1]
    assert list(stream.cycle(9)) == (items * 9)[:9]
    assert list(pickle.loads(pickle.dumps(stream))) == list(copy.deepcopy(stream)) == items
    assert stream.active == FIVE.active == 0


@every_backend
@every_call
def test_it_is_the_same_in_the_background(stream, items, backend):
    mux = ChainMux([stream, [99]])
    with ParallelStreamer(stream, backend) as one, ParallelStreamer(mux, backend, n_workers=2) as two:
        assert list(one) == list(one) == items
        assert list(two) == list(two) == [*items, 99]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((2.5,), {}, "max_iter must be .*got 2.5"),
        ((-1,), {}, "max_iter must be .*got -1"),
        (("x",), {}, "max_iter must be .*got 'x'"),
        ((FIVE,), {}, "max_iter must be"),
        ((RNG,), {}, "max_iter must be"),
        ((), {"max_iter": float("nan")}, "max_iter must be .*got nan"),
        ((), {"cycle": "yes"}, "cycle must be True or False, got 'yes'"),
        ((3,), {"max_items": 3}, "are the same"),
        ((), {"n": 3}, r"called with max_iter and cycle, but got .*'n'.*Streamer\(function, stream, ...\)"),
        ((3,), {"max_iter": 3}, "called with max_iter and cycle, but got multiple values"),
        ((3, True, 3), {}, "called with max_iter and cycle, but takes"),
    ],
)
def test_what_a_streamer_cannot_be_called_with_is_refused_when_it_is_made(args, kwargs, message):
    for stream in (FIVE, ChainMux([FIVE]), ParallelStreamer(FIVE, "thread")):
        with pytest.raises(PescadorError, match=message):
            Streamer(stream, *args, **kwargs)


# Randomness


def random_mux(random_state=None):
    members = [Streamer(noise, 4, RNG), Streamer(noise, 4, rng=RNG)]
    return StochasticMux(members, 2, 3, mode="exhaustive", random_state=random_state)


def test_it_inherits_its_seed():
    for cycle in (False, True):
        chain = ChainMux([Streamer(random_mux(), 30, cycle)] * 2, random_state=1)
        once = list(chain)
        assert once == list(chain)
        assert once[: len(once) // 2] != once[len(once) // 2 :]
        assert once != list(ChainMux(chain.streamers, random_state=2))


def test_cycled_epochs_are_those_that_cycle_gives():
    for random_state in (None, 3):
        mux = random_mux(random_state)
        np.random.seed(0)  # noqa: NPY002 -- this governs a mux without a random_state
        expected = list(mux.cycle(30))
        for stream in (Streamer(mux, max_iter=30, cycle=True), Streamer(mux.cycle, 30)):
            np.random.seed(0)  # noqa: NPY002 -- as above
            assert list(stream) == expected
        assert len({*expected}) > 12  # three epochs or more, and different ones


def test_a_bound_method_of_a_stream_inherits_its_seed():
    class Twice(ShuffledMux):
        def twice(self, n):
            for _ in range(2):
                yield from self.iterate(n)

    for method in (random_mux().cycle, random_mux().iterate, Twice([Streamer(noise, 9, RNG)]).twice):
        streams = [Streamer(method, 8)] * 2
        chain = ChainMux(streams, random_state=1)
        assert (
            list(chain)
            == list(chain)
            == list(copy.deepcopy(chain))
            != list(ChainMux(streams, random_state=2))
        )
    first, second = np.reshape(list(Streamer(Twice([Streamer(noise, 9, RNG)]).twice, 8)), (2, 8)).tolist()
    assert first != second


@every_backend
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("cycle", [False, True])
def test_a_limited_mux_gives_the_same_on_workers(backend, n_workers, cycle):
    stream = Streamer(random_mux(random_state=5), max_iter=20, cycle=cycle)
    for tree in (stream, Streamer(stream, 19), ChainMux([stream, stream], random_state=6)):
        with ParallelStreamer(tree, backend, n_workers) as parallel:
            assert list(parallel) == list(tree) == list(parallel)


# What mixes


def test_a_streamer_mixes_if_it_is_a_mux_or_one_of_one():
    mux = RoundRobinMux([FIVE])
    assert mux.mixes
    assert Streamer(mux).mixes
    assert Streamer(Streamer(mux, 3), cycle=True).mixes
    assert ChainMux(Streamer(numbers, 3)).mixes
    assert not FIVE.mixes
    assert not Streamer(FIVE, 3).mixes
    assert not Streamer(buffer_stream, mux, 3).mixes
    assert not ParallelStreamer(mux, "thread").mixes
    assert not Streamer(ParallelStreamer(mux, "thread"), 3).mixes


# Laziness


@pytest.mark.parametrize("cycle", [False, True])
def test_it_takes_no_item_beyond_its_limit(cycle):
    source = Counting()
    assert len(list(Streamer(Streamer(source), 7, cycle))) == source.taken == 7
    items = iter(Streamer(Streamer(source), 7, cycle))
    next(items)
    items.close()
    assert (source.taken, source.running) == (8, 0)
