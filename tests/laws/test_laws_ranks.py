"""The law of ranks: item p of the whole is item p // world of rank p % world, for any tree and any world.

PESCADOR_LAW_EXAMPLES sets the number of trees for each backend and number of workers.
"""

import os
from itertools import count, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pescador import RNG, START, Epochs, RoundRobinMux, Streamer, shard
from pescador.backends.worker import open_stream

from ..streams import noise
from .test_laws_resuming import hurry, rooted, seeking, through_json
from .test_laws_workers import assert_same, workers

N = 80  # items of the whole that are looked at; many trees are endless

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))
BACKENDS = [("serial", {}), ("thread", {}), ("shm", {"ring_bytes": 1 << 20}), ("zmq", {})]

worlds = st.integers(1, 5)
# World, rounds until a state is saved, and the rank that saves it: of at most N items in all.
pieces = st.lists(st.tuples(worlds, st.integers(0, 5), worlds), min_size=1, max_size=3)

endless = st.one_of(
    st.just(Streamer(noise, 10**9, rng=RNG)),
    st.just(Streamer(seeking, 10**9, START)),
    st.builds(
        lambda lengths: Streamer(RoundRobinMux([Streamer(noise, n, RNG) for n in lengths]), cycle=True),
        st.lists(st.integers(1, 5), min_size=1, max_size=3),
    ),
)
robins = st.builds(
    RoundRobinMux,
    st.lists(endless, min_size=12, max_size=12),
    st.sampled_from(["exhaustive", "cycle", "permuted_cycle"]),
    st.integers(0, 3),
)
divisors = st.sampled_from([1, 2, 3, 4, 6, 12])
pieces_of_robins = st.lists(st.tuples(divisors, st.integers(0, 5), divisors), min_size=1, max_size=3)


def share_of(items, rank, world, start=0):
    """Return what a rank takes of the items of the whole from `start` on: one of each whole round."""
    n_rounds = (len(items) - start) // world
    return items[start + (rank - start) % world :: world][:n_rounds]


def assert_ranks_share(whole, world, part):
    for rank in range(world):
        assert_same(list(part(rank, world).iterate(len(whole) // world)), share_of(whole, rank, world))


def assert_ranks_go_on(whole, pieces, part):
    """Go on with another number of ranks after each piece, from a state of any of them."""
    state, start, n_rounds = None, 0, 0
    for world, rounds, saver in pieces:
        states = []
        for rank in range(world):
            stream = part(rank, world)
            if state is not None:
                stream.load_state_dict(state)
            items = stream.iterate()
            found = list(islice(items, rounds))
            states.append(through_json(items.state_dict()))
            items.close()
            assert_same(found, share_of(whole[: start + world * rounds], rank, world, start))
        if len(found) < rounds:
            break
        state, start, n_rounds = states[saver % world], start + world * rounds, n_rounds + rounds
        assert n_rounds == (state["state"] or {"n": 0})["n"]


@settings(max_examples=EXAMPLES or 200)
@given(rooted, worlds)
def test_ranks_share_any_tree(tree, world):
    assert_ranks_share(list(tree(N)), world, lambda rank, world: shard(tree, rank, world))


@settings(max_examples=EXAMPLES or 100)
@given(rooted, worlds)
def test_in_each_epoch(tree, world):
    n = N // world  # items of a rank
    for rank in range(world):
        part, cycled = shard(tree, rank, world), []
        epochs = Epochs(part)
        for epoch in range(3):
            expected = share_of(list(tree.iterate(n * world, epoch=epoch)), rank, world)
            assert_same(list(part.iterate(n, epoch=epoch)), expected)
            assert_same(list(islice(epochs, n)), expected)
        for epoch in count():
            expected = share_of(list(tree.iterate(n * world, epoch=epoch)), rank, world)
            cycled += expected
            if not expected or len(cycled) >= n:
                break
        assert_same(list(part.cycle(n)), cycled[:n])


@settings(max_examples=EXAMPLES or 200)
@given(rooted, pieces)
def test_any_number_of_ranks_goes_on(tree, pieces):
    assert_ranks_go_on(list(tree(N)), pieces, lambda rank, world: shard(tree, rank, world))


@given(rooted, worlds, st.integers(0, 5), st.booleans())
def test_a_state_is_that_of_all_ranks(tree, world, rounds, cycle):
    states = []
    for rank in range(world):
        part = shard(tree, rank, world)
        items = part(cycle=cycle)
        list(islice(items, rounds))
        states.append(items.state_dict())
    assert all(state == states[0] for state in states)


@settings(max_examples=EXAMPLES or 50)
@given(robins, pieces_of_robins, divisors)
def test_ranks_share_the_streams_of_a_round_robin(robin, pieces, world):
    def part(rank, world):
        return shard(robin, rank, world, by="stream")

    whole = list(robin(12 * 5 * 3))
    assert_ranks_share(whole, world, part)
    assert_ranks_go_on(whole, pieces, part)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("backend", "options"), BACKENDS)
def test_in_the_background(backend, options, n, monkeypatch):
    monkeypatch.setattr(open_stream, "SNAPSHOT_SECONDS", 0)
    monkeypatch.setattr(open_stream, "SNAPSHOT_SHARE", 1e9)
    with workers(backend, n, **options) as parallel:
        list(parallel(RoundRobinMux([Streamer(hurry)] * n), None, None))

        @settings(max_examples=EXAMPLES or (30 if backend in ("serial", "thread") else 10))
        @given(rooted, worlds, pieces, st.sampled_from([None, 1, 7]), st.integers(0, 3))
        def same(tree, world, pieces, prefetch, turn):
            here = [
                lambda rank, world: parallel(shard(tree, rank, world), prefetch, None),
                lambda rank, world: shard(parallel(tree, prefetch, None), rank, world),
                lambda rank, world: shard(tree, rank, world),
            ]
            whole, turns = list(tree(N)), count(turn)
            assert_ranks_share(whole, world, here[turn % 2])
            assert_ranks_go_on(whole, pieces, lambda *which: here[next(turns) % 3](*which))

        @settings(max_examples=EXAMPLES or (20 if backend in ("serial", "thread") else 5))
        @given(robins, divisors, pieces_of_robins, st.sampled_from([None, 1, 7]))
        def same_by_stream(robin, world, pieces, prefetch):
            def part(rank, world):
                return parallel(shard(robin, rank, world, "stream"), prefetch, None)

            whole = list(robin(12 * 5 * 3))
            assert_ranks_share(whole, world, part)
            assert_ranks_go_on(whole, pieces, part)

        same()
        same_by_stream()


@pytest.mark.parametrize("by", ["item", "stream"])
def test_a_worker_that_has_not_said_where_it_stands_goes_on_with_other_ranks(by):
    robin = RoundRobinMux([Streamer(noise, 10**9, RNG)] * 12, "permuted_cycle", random_state=0)
    with workers("thread", 1) as parallel:
        pieces = [(4, 5, 0), (3, 5, 1), (6, 5, 2), (6, 5, 0)]
        assert_ranks_go_on(
            list(robin(200)), pieces, lambda *which: parallel(shard(robin, *which, by), None, None)
        )
