"""Law 9, resumable: random trees, cut anywhere, go on anywhere else with the item that would have come next.

PESCADOR_LAW_EXAMPLES sets the number of trees for each backend and number of workers.
"""

import json
import os
import zlib
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pescador
from pescador import RNG, START, ChainMux, RoundRobinMux, Streamer
from pescador.backends.worker import loop

from ..streams import noise, numbers
from .test_laws_serial import epochs, grouped, muxes
from .test_laws_workers import assert_same, workers

N = 80  # items looked at; many trees are endless

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))


def seeking(n, start):
    for i in range(start, n):
        yield i, "sought"


def as_dict(item):
    return {"x": np.asarray([zlib.crc32(str(item).encode()) % 1000])}


def keep_all(item):
    return item["x"] >= 0


@pescador.stateless
def cycled(streams):
    """A stateless map of a list of streams, of which it cycles the first."""
    yield from zip(streams[0].cycle(), *streams[1:], strict=False)


def hurry():
    """Have the worker that runs this say after each slice where its streams stand."""
    loop.SNAPSHOT_SECONDS = 0
    loop.SNAPSHOT_SHARE = 1e9
    yield


leaves = st.one_of(
    st.builds(lambda n: Streamer(range(n)), st.integers(0, 6)),
    st.builds(lambda n, start: Streamer(numbers, n, start), st.integers(0, 6), st.integers(0, 99)),
    st.builds(lambda n: Streamer(noise, n, rng=RNG), st.sampled_from([0, 3, 100])),
    st.builds(lambda n: Streamer(seeking, n, START), st.sampled_from([0, 3, 100])),
    st.builds(lambda n: Streamer(seeking, n, start=START), st.integers(0, 6)),
)


def extend(children):
    batches = st.builds(
        lambda stream, n, partial: Streamer(
            pescador.buffer_stream, Streamer(filter, keep_all, Streamer(map, as_dict, stream)), n, partial
        ),
        children,
        st.integers(1, 3),
        st.booleans(),
    )
    return st.one_of(
        muxes(children),
        muxes(children),
        batches,
        st.builds(lambda stream, n: Streamer(grouped, stream, n), children, st.integers(1, 3)),
        st.builds(lambda streams: Streamer(epochs, streams, 3), st.lists(children, max_size=3)),
        st.builds(lambda streams: Streamer(cycled, streams), st.lists(children, min_size=1, max_size=3)),
        st.builds(lambda stream, n: Streamer(stream, n, cycle=True), children, st.none() | st.integers(0, 9)),
        st.builds(lambda stream, n: Streamer(stream, max_iter=n), children, st.none() | st.integers(0, 9)),
        st.builds(lambda stream: Streamer(stream.cycle, 30), children),
    )


trees = st.recursive(leaves, extend, max_leaves=12)
rooted = st.builds(lambda tree: ChainMux([tree], random_state=0), trees)
cuts = st.lists(st.integers(0, N), min_size=1, max_size=3)


def through_json(state):
    return json.loads(json.dumps(state))


def in_pieces(streams, cuts, cycle=False):
    """Return the first items of a stream, each piece of it from another one of `streams`."""
    items, state = [], None
    for i, cut in enumerate([*sorted(cuts), N]):
        stream = streams[i % len(streams)]
        if state is not None:
            stream.load_state_dict(state)
        iterator = stream(N, cycle=cycle)
        found = list(islice(iterator, cut - len(items)))
        ended = len(found) < cut - len(items)
        items += found
        if ended or len(items) == N:
            break
        state = through_json(iterator.state_dict())
        iterator.close()
        assert stream.state_dict() == state
    return items


@settings(max_examples=EXAMPLES or 300)
@given(rooted, cuts, st.booleans())
def test_trees_go_on_where_they_stood(tree, cuts, cycle):
    assert_same(in_pieces([tree], cuts, cycle), list(islice(tree(N, cycle=cycle), N)))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    ("backend", "options"), [("serial", {}), ("thread", {}), ("shm", {"ring_bytes": 1 << 20}), ("zmq", {})]
)
def test_trees_go_on_on_another_backend_with_another_number_of_workers(backend, options, n, monkeypatch):
    monkeypatch.setattr(loop, "SNAPSHOT_SECONDS", 0)
    monkeypatch.setattr(loop, "SNAPSHOT_SHARE", 1e9)
    with workers(backend, n, **options) as parallel, workers("thread", 4 - n) as other:
        list(parallel(RoundRobinMux([Streamer(hurry)] * n), None, None))

        @settings(max_examples=EXAMPLES or (60 if backend in ("serial", "thread") else 25))
        @given(rooted, cuts, st.sampled_from([None, 1, 2, 7]), st.booleans())
        def same(tree, cuts, prefetch, cycle):
            streams = [parallel(tree, prefetch, None), tree, other(tree, prefetch, None)]
            assert_same(in_pieces(streams, cuts, cycle), list(islice(tree(N, cycle=cycle), N)))

        same()
