"""Law 9, resumable: random trees, cut anywhere, go on anywhere else with the item that would have come next.

PESCADOR_LAW_EXAMPLES sets the number of trees for each backend and number of workers.
"""

import json
import os
from functools import partial
from itertools import islice
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pescador
from pescador import RNG, START, BaseMux, ChainMux, ParallelStreamer, RoundRobinMux, Streamer
from pescador.backends.worker import open_stream

from ..streams import noise, numbers
from .test_laws_serial import epochs, grouped, muxes
from .test_laws_workers import assert_same, workers

N = 80  # items looked at; many trees are endless

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))


def seeking(n, start):
    for i in range(start, n):
        yield i, "sought"


def as_dict(item):
    return {"x": np.asarray([crc32(str(item).encode())])}  # hash() differs from one process to the next


def keep_all(item):
    return item["x"] >= 0


@pescador.stateless
def cycled(streams):
    """A stateless map of a list of streams, of which it cycles the first."""
    yield from zip(streams[0].cycle(), *streams[1:], strict=False)


@pescador.stateless
def batched_forever(stream, n):
    """A stateless map that opens its stream again and again, unless that is empty."""
    n_empty = 0
    while n_empty < 3:
        n_empty += 1
        for batch in pescador.buffer_stream(stream, n, partial=True):
            n_empty = 0
            yield batch


@pescador.stateless
def if_needed(stream, other):
    """A stateless map that opens a stream before it takes anything from it."""
    others = islice(other, None)
    for item in stream:
        yield (item, *islice(others, 1)) if len(str(item)) % 3 == 0 else item


class Numbered:
    """A map with a state, which is made again."""

    n = 0

    def __call__(self, stream):
        for item in stream:
            self.n += 1
            yield self.n, item


class Turns(BaseMux):
    """A mux of one's own, with a state: one item of each stream in turn."""

    def samples(self):
        self._turn = self.resumed["turn"] if self.resumed else 0
        self._gone = list(self.resumed["gone"]) if self.resumed else []
        self._streams = [
            iter(()) if i in self._gone else self.open_stream(i, np.int64(i)) for i in range(self.n_streams)
        ]
        with self.closing(self._streams):
            while len(self._gone) < self.n_streams:
                i = self._turn % self.n_streams
                self._turn += 1
                try:
                    yield next(self._streams[i])
                except StopIteration:
                    self._gone += [i] * (i not in self._gone)

    def state(self):
        left = [(i, stream) for i, stream in enumerate(self._streams) if i not in self._gone]
        return {
            "turn": self._turn,
            "gone": list(self._gone),
            "streams": self.stream_states(((np.int64(i),), stream) for i, stream in left),
        }


class TurnsAgain(Turns):
    """The same without a state: all of it is made again."""

    def state(self):
        return None


def hurry():
    """Have the worker that runs this say after each slice where its streams stand."""
    open_stream.SNAPSHOT_SECONDS = 0
    open_stream.SNAPSHOT_SHARE = 1e9
    yield


ns = st.integers(1, 3)
leaves = st.one_of(
    st.builds(lambda n: Streamer(range(n)), st.integers(0, 6)),
    st.builds(lambda n, start: Streamer(numbers, n, start), st.integers(0, 6), st.integers(0, 99)),
    st.builds(lambda n: Streamer(noise, n, rng=RNG), st.sampled_from([0, 3, 100])),
    st.builds(lambda n: Streamer(partial(noise, rng=RNG), n), st.integers(0, 6)),
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
        st.builds(
            lambda stream, n: Streamer(batched_forever, Streamer(map, as_dict, stream), n), children, ns
        ),
        st.builds(lambda *streams: Streamer(if_needed, *streams), children, children),
        st.builds(lambda stream: Streamer(Numbered(), stream), children),
        st.builds(lambda stream: Streamer(pescador.cache, stream, 3, random_state=RNG), children),
        st.builds(lambda streams: Turns(streams), st.lists(children, min_size=1, max_size=3)),
        st.builds(lambda streams: TurnsAgain(streams), st.lists(children, min_size=1, max_size=3)),
        st.builds(lambda stream: ParallelStreamer(stream, "serial"), children),
        st.builds(
            lambda streams: ParallelStreamer(RoundRobinMux(streams), "serial", 2),
            st.lists(children, min_size=1, max_size=3),
        ),
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


@settings(max_examples=EXAMPLES or 100)
@given(rooted, st.booleans())
def test_to_ask_at_any_time_changes_nothing(tree, cycle):
    items = tree(N, cycle=cycle)
    found, states = [], [items.state_dict()]
    for item in items:
        found.append(item)
        states.append(through_json(items.state_dict()))
        assert states[-1] == items.state_dict()  # of what JSON knows, and nothing else
    assert_same(found, list(tree(N, cycle=cycle)))
    tree.load_state_dict(states[-1])
    assert tree.state_dict() == states[-1]
    assert list(tree(N, cycle=cycle)) == []


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    ("backend", "options"), [("serial", {}), ("thread", {}), ("shm", {"ring_bytes": 1 << 20}), ("zmq", {})]
)
def test_trees_go_on_on_another_backend_with_another_number_of_workers(backend, options, n, monkeypatch):
    monkeypatch.setattr(open_stream, "SNAPSHOT_SECONDS", 0)
    monkeypatch.setattr(open_stream, "SNAPSHOT_SHARE", 1e9)
    with workers(backend, n, **options) as parallel, workers("thread", 4 - n) as other:
        list(parallel(RoundRobinMux([Streamer(hurry)] * n), None, None))

        @settings(max_examples=EXAMPLES or (60 if backend in ("serial", "thread") else 25))
        @given(rooted, cuts, st.sampled_from([None, 1, 2, 7]), st.booleans())
        def same(tree, cuts, prefetch, cycle):
            streams = [parallel(tree, prefetch, None), tree, other(tree, prefetch, None)]
            assert_same(in_pieces(streams, cuts, cycle), list(islice(tree(N, cycle=cycle), N)))

        same()
