"""The laws of the library, for streams that run in this process, over random trees of streams."""

import copy
import pickle
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pescador import RNG, ChainMux, RoundRobinMux, ShuffledMux, StochasticMux, Streamer

from ..streams import Counting, noise, numbers

N = 60  # items looked at; many trees are endless

MODES = ["with_replacement", "single_active", "exhaustive"]


def grouped(stream, n):
    """A map: groups of n items, the last one perhaps smaller."""
    items = iter(stream)
    while group := tuple(islice(items, n)):
        yield group


def epochs(streams, n):
    """Opens each of the streams among its arguments several times."""
    for _ in range(n):
        for stream in streams:
            yield from stream.iterate(5)


# Trees


@st.composite
def muxes(draw, children, endless=True):
    streams = draw(st.lists(children, min_size=1, max_size=5))
    n = len(streams)
    random_state = draw(st.none() | st.integers(0, 3))
    weights = draw(st.none() | st.lists(st.sampled_from([0, 1e-9, 1, 2, 1e6]), min_size=n, max_size=n))
    if weights and not any(weights):
        weights = None
    kind = draw(st.sampled_from(["chain", "round robin", "stochastic", "shuffled"][: None if endless else 3]))
    if kind == "chain":
        return ChainMux(streams, draw(st.sampled_from(["exhaustive", "cycle"][: 1 + endless])), random_state)
    if kind == "round robin":
        modes = ["exhaustive", "cycle", "permuted_cycle"][: 3 if endless else 1]
        return RoundRobinMux(streams, draw(st.sampled_from(modes)), random_state)
    if kind == "shuffled":
        return ShuffledMux(streams, weights, random_state)
    mode = draw(st.sampled_from(MODES if endless else MODES[2:]))
    return StochasticMux(
        streams,
        draw(st.integers(1, n + 2)),
        draw(st.sampled_from([None, 1, 3])),
        weights,
        mode,
        draw(st.booleans()),
        random_state,
        draw(st.sampled_from(["poisson", "constant", "binomial"])),
    )


leaves = st.one_of(
    st.builds(lambda n: Streamer(range(n)), st.integers(0, 6)),
    st.builds(lambda n, start: Streamer(numbers, n, start), st.integers(0, 6), st.integers(0, 99)),
    st.builds(lambda n: Streamer(noise, n, rng=RNG), st.sampled_from([0, 3, 100])),
    st.builds(lambda n: Streamer(Streamer(noise, n, RNG)), st.integers(0, 6)),
)

trees = st.recursive(
    leaves,
    lambda children: st.one_of(
        muxes(children),
        muxes(children),
        st.builds(lambda stream, n: Streamer(grouped, stream, n), children, st.integers(1, 3)),
        st.builds(
            lambda streams, n: Streamer(epochs, streams, n), st.lists(children, max_size=3), st.just(3)
        ),
    ),
    max_leaves=12,
)

sources = st.builds(Counting, st.sampled_from([0, 1, 3, 10**9]))
mux_trees = st.recursive(muxes(sources), lambda children: muxes(children | sources), max_leaves=6)


def sources_of(stream):
    """Return all different Counting objects of a tree."""
    if isinstance(stream, Counting):
        return {stream}
    inner = stream.streamer if isinstance(stream.streamer, list) else [stream.streamer]
    return set().union(*map(sources_of, inner))


# Transparency

items = st.recursive(
    st.one_of(
        st.none(),
        st.text(),
        st.floats(),
        st.builds(object),
        st.builds(
            lambda shape, dtype: np.zeros(shape, dtype),
            st.sampled_from([(), 0, (2, 3)]),
            st.sampled_from("fMO"),
        ),
    ),
    lambda entries: st.lists(entries) | st.dictionaries(st.text(), entries) | st.tuples(entries),
)


@given(st.lists(items, min_size=1), st.integers(0, 5))
def test_no_wrapper_changes_an_item(items, depth):
    stream = Streamer(items)
    for _ in range(depth):
        stream = RoundRobinMux([Streamer(ChainMux([stream]))])
    assert list(map(id, stream)) == list(map(id, items))
    ids = set(map(id, items))
    for mux in (ShuffledMux([stream, items]), StochasticMux([stream, items], 2, 3)):
        assert ids >= set(map(id, mux.iterate(N)))


# Laziness and boundedness


@given(mux_trees, st.sampled_from(["iterate", "cycle"]))
def test_an_item_takes_exactly_one_item_from_a_source(tree, method):
    counted = sources_of(tree)
    stream = getattr(tree, method)(N)
    assert not any(source.opened for source in counted)
    n = 0
    for n, _ in enumerate(stream, 1):
        assert sum(source.taken for source in counted) == n
    assert sum(source.taken for source in counted) == n
    assert not any(source.running for source in counted)


@given(mux_trees, st.integers(0, 10))
def test_all_streams_are_closed_when_an_iteration_is_broken_off(tree, n):
    stream = tree.iterate()
    for _ in islice(stream, n):
        pass
    stream.close()
    assert not any(source.running for source in sources_of(tree))


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=12),
    st.integers(1, 12),
    st.sampled_from(MODES),
    st.sampled_from([None, 1, 2, 5]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_a_stochastic_mux_draws_from_n_active_streams_at_most(lengths, n_active, mode, rate, weighted, seed):
    members = [Counting(n) for n in lengths]
    weights = [1 + i % 3 for i in range(len(members))] if weighted else None
    for _ in StochasticMux(members, n_active, rate, weights, mode, random_state=seed)(100):
        assert sum(source.running for source in members) <= n_active
        assert mode == "with_replacement" or max(source.running for source in members) == 1
    if mode == "exhaustive":
        assert all(source.opened <= 1 for source in members)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 99))
def test_exhaustive_muxes_give_every_item_once(lengths, seed):
    streams = [[(i, k) for k in range(n)] for i, n in enumerate(lengths)]
    everything = Counter(item for stream in streams for item in stream)
    for mux in (
        ChainMux(streams),
        RoundRobinMux(streams),
        StochasticMux(streams, len(streams), None, mode="exhaustive", random_state=seed),
        StochasticMux(
            streams, 1, None, [2.0**i for i in range(len(streams))], "exhaustive", random_state=seed
        ),
    ):
        given_items = list(mux)
        assert Counter(given_items) == everything
        for i in range(len(streams)):
            assert [item for item in given_items if item[0] == i] == streams[i]


# Reproducibility


def rooted(tree, seed=0):
    return ChainMux([tree], random_state=seed)


@given(trees, st.integers(0, 2**64))
def test_one_random_state_at_the_root_fixes_everything(tree, seed):
    first = list(rooted(tree, seed)(N))
    np.random.seed(1)  # noqa: NPY002 -- the global state has no part in it
    assert list(rooted(tree, seed)(N)) == first
    assert list(rooted(copy.deepcopy(tree), seed)(N)) == first
    assert list(rooted(pickle.loads(pickle.dumps(tree)), seed)(N)) == first


@given(trees)
def test_cycle_is_reproducible_and_begins_with_the_epoch_of_iterate(tree):
    mux = rooted(tree)
    epoch = list(mux.iterate(N))
    cycled = list(mux.cycle(N))
    assert cycled[: len(epoch)] == epoch
    assert list(mux.cycle(N)) == cycled
    assert len(cycled) in (0, N)


@given(trees)
def test_numpy_global_seed_fixes_a_tree_without_a_random_state(tree):
    def run():
        np.random.seed(5)  # noqa: NPY002 -- this is about it
        return [list(tree.iterate(N)) for _ in range(2)]

    assert run() == run()


@given(
    st.recursive(st.builds(lambda: Streamer(noise, 9, RNG)), lambda c: muxes(c, endless=False), max_leaves=6)
)
def test_random_streams_differ_between_epochs_of_cycle(tree):
    mux = rooted(tree)
    size = len(list(mux))
    cycled = list(mux.cycle(4 * size + 40))
    assert cycled[:3] != cycled[size : size + 3] or size < 3
    assert list(mux.iterate()) == cycled[:size]


@given(trees, st.sampled_from([1, 2, 5, 4096]))
def test_the_size_of_the_blocks_of_random_numbers_changes_nothing(tree, size):
    expected = list(rooted(tree)(N))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pescador.sampling.FIRST_BLOCK", size)
        patch.setattr("pescador.sampling.LAST_BLOCK", size)
        assert list(rooted(tree)(N)) == expected


@given(trees)
def test_consuming_one_iteration_does_not_disturb_another(tree):
    mux = rooted(tree)
    expected = list(mux.iterate(N))
    pairs = list(zip(mux.iterate(N), mux.iterate(N), strict=True))
    assert pairs == list(zip(expected, expected, strict=True))
