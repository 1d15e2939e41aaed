"""Weights that are changed, and states: before, at and after the place where a stream goes on.

PESCADOR_LAW_EXAMPLES sets the number of changes that are tried for each mux and place of it.
"""

import copy
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pescador import RNG, ParallelStreamer, RoundRobinMux, ShuffledMux, StochasticMux, Streamer, checkpoint
from pescador.backends.worker import open_stream

from ..streams import noise

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))

N_STREAMS = 5
LENGTH = 90  # items looked at

KINDS = {
    "shuffled": lambda streams, weights: ShuffledMux(streams, weights, random_state=0),
    "with_replacement": lambda streams, weights: StochasticMux(streams, 3, 4, weights, random_state=0),
    "single_active": lambda streams, weights: StochasticMux(
        streams, 3, 4, weights, "single_active", random_state=0, dist="binomial"
    ),
    "exhaustive": lambda streams, weights: StochasticMux(
        streams, 2, 30, weights, "exhaustive", random_state=0
    ),
}
PLACES = {
    "alone": lambda mux: mux,
    "nested": lambda mux: RoundRobinMux([mux, [0] * LENGTH], random_state=0),
    "below a map": lambda mux: Streamer(map, lambda item: item, mux),
    "serial": lambda mux: ParallelStreamer(mux, "serial", 2),
    "thread": lambda mux: ParallelStreamer(mux, "thread", 2),
    "thread, nested": lambda mux: ParallelStreamer(RoundRobinMux([mux, mux], random_state=0), "thread", 2),
}
weights = st.none() | st.lists(st.sampled_from([0, 1, 2, 1e6]), min_size=N_STREAMS, max_size=N_STREAMS)
weights = weights.filter(lambda values: values is None or any(values))
changes = st.dictionaries(st.integers(0, LENGTH), weights, max_size=4)


def hurry():
    """Have the worker that runs this say after each slice where its streams stand."""
    open_stream.SNAPSHOT_SECONDS = 0
    open_stream.SNAPSHOT_SHARE = 1e9
    yield


def make(kind, original):
    return KINDS[kind]([Streamer(noise, 40, RNG) for _ in range(N_STREAMS)], original)


def values_of(mux):
    return None if mux.weights is None else mux.weights.tolist()


def take(mux, items, start, end, changes, late=False):
    """Return the items from one place to another, while the weights are changed before some of them.

    With `late`, a change at the end is left to the next piece.
    """
    found = []
    for i in range(start, end):
        if i in changes:
            mux.weights = changes[i]
        found += [item for item in [next(items, None)] if item is not None]
    if end in changes and not late:
        mux.weights = changes[end]
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_goes_on_with_weights_that_were_changed(kind, place):
    @settings(max_examples=EXAMPLES or 40)
    @given(weights, changes, st.integers(1, LENGTH), st.sampled_from(["before", "loaded", "begun"]))
    def same(original, changes, cut, when):
        mux = make(kind, original)
        stream = PLACES[place](mux)
        expected = take(mux, iter(stream), 0, LENGTH, changes)
        last = values_of(mux)
        if isinstance(stream, ParallelStreamer):
            stream.close()

        mux = make(kind, original)
        stream = PLACES[place](mux)
        items = iter(stream)
        found = take(mux, items, 0, cut, changes, late=when != "before")
        state = json.loads(json.dumps(items.state_dict()))
        if state["state"] is None:  # it had ended
            return
        if isinstance(stream, ParallelStreamer):
            stream.close()

        mux = make(kind, original)
        stream = PLACES[place](mux)
        stream.load_state_dict(state)
        if when == "loaded" and cut in changes:
            mux.weights = changes[cut]
        items = iter(stream)
        if when == "begun" and cut in changes:
            mux.weights = changes[cut]
        later = {i: values for i, values in changes.items() if i > cut}
        found += take(mux, items, cut, LENGTH, later)
        assert found == expected
        assert values_of(mux) == last
        if isinstance(stream, ParallelStreamer):
            stream.close()

    same()


def test_weights_are_those_of_the_state_whatever_they_were():
    streams = [Streamer(noise, 40, RNG) for _ in range(3)]
    mux = ShuffledMux(streams, [1, 2, 3], random_state=0)
    unchanged = mux.state_dict()
    mux.weights = [3, 2, 1]
    changed = mux.state_dict()
    mux.load_state_dict(unchanged)
    assert values_of(mux) == [1, 2, 3]
    mux.load_state_dict(changed)
    assert values_of(mux) == [3, 2, 1]
    assert (unchanged["weights"], changed["weights"]) == ([], [[[], [3, 2, 1]]])


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_found_wherever_a_mux_is(wrapped):
    def tree():
        muxes = [make("shuffled", [1, 2, 3, 4, 5]) for _ in range(4)]
        inner = [ParallelStreamer(muxes[0], "thread") if wrapped else muxes[0], Streamer(map, str, muxes[1])]
        inner += [Streamer(muxes[2], 5), Streamer(noise, [muxes[3]])]
        return muxes, ParallelStreamer(RoundRobinMux(inner), "thread") if wrapped else RoundRobinMux(inner)

    muxes, stream = tree()
    for i, mux in enumerate(muxes):
        mux.weights = [i, 1, 1, 1, 1]
    state = json.loads(json.dumps(stream.state_dict()))
    others, other = tree()
    other.load_state_dict(state)
    assert [values_of(mux) for mux in others] == [values_of(mux) for mux in muxes]


def test_a_worker_goes_on_with_the_weights_that_it_had():
    """What is changed meanwhile holds from the next opening on, there and where the stream goes on."""
    mux = make("shuffled", [1, 2, 3, 4, 5])
    expected = list(mux(60))
    with ParallelStreamer(Streamer(hurry), "shm") as first:
        list(first)
        stream = ParallelStreamer(mux, "shm", prefetch=8)
        stream._pool = first._pool
        items = iter(stream)
        found = [next(items) for _ in range(20)]
        mux.weights = [5, 0, 0, 0, 1]
        state = json.loads(json.dumps(items.state_dict()))
        items.close()
    changed = list(mux(20))
    for place in (lambda mux: mux, lambda mux: ParallelStreamer(mux, "shm")):
        mux = make("shuffled", [1, 2, 3, 4, 5])
        stream = place(mux)
        stream.load_state_dict(state)
        assert values_of(mux) == [5, 0, 0, 0, 1]
        assert found + list(stream(60)) == expected
        assert list(stream(20)) == changed
        if isinstance(stream, ParallelStreamer):
            stream.close()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda mux: pickle.loads(pickle.dumps(mux))])
def test_copies_keep_that_weights_were_changed(copied):
    mux = make("shuffled", [1, 2, 3, 4, 5])
    mux.weights = [5, 4, 3, 2, 1]
    other = copied(mux)
    assert other.state_dict() == mux.state_dict()
    other.weights = [1, 2, 3, 4, 5]
    assert other.state_dict()["weights"] == []
    assert values_of(mux) == [5, 4, 3, 2, 1]


def test_weights_that_are_gone_are_not_remembered():
    mux = make("shuffled", [1, 2, 3, 4, 5])
    n = len(checkpoint.changed_weights)
    mux.weights = np.ones(5)
    assert len(checkpoint.changed_weights) == n + 1
    del mux
    assert len(checkpoint.changed_weights) == n
