"""States: which iteration they are of, what goes on from them, what they hold, and what is refused."""

import copy
import json
import math
import pickle
from itertools import count, islice

import numpy as np
import pytest

import pescador
from pescador import (
    RNG,
    START,
    ChainMux,
    ParallelStreamer,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    buffer_stream,
)

from .kinds import every_backend
from .streams import Counting, countdown, noise, numbers


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
