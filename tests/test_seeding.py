import copy
import functools
import os
import pickle
import subprocess
import sys
import threading

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
    seeding,
)
from pescador.seeding import Seed, SeedSource

from .streams import letters, noise, numbers

# Seed


def test_a_seed_is_worth_the_seed_sequence_of_its_address():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7, spawn_key=(3, 12))))
    assert Seed(7, (3,)).child(12).generator().random() == expected.random()
    assert Seed(7).child(3, 12).generator().random() == Seed(7, (3, 12)).generator().random()


def test_an_open_seed_asks_the_global_state_once_and_only_if_needed():
    np.random.seed(0)  # noqa: NPY002 -- this is about it
    before = np.random.get_state()[2]  # noqa: NPY002 -- as above
    seed = Seed()
    child = seed.child(1, 2)
    assert np.random.get_state()[2] == before  # noqa: NPY002 -- as above
    assert child.entropy == seed.entropy


def test_a_seed_can_be_pickled():
    seed = Seed().child(4)
    shipped = pickle.loads(pickle.dumps(seed))
    assert (shipped.entropy, shipped.path) == (seed.entropy, seed.path)


# random_state


@pytest.mark.parametrize(
    ("random_state", "message"),
    [(-1, "-1"), (1.5, "1.5"), ("x", "'x'"), ([1, 2], r"\[1, 2\]"), (RNG, "pescador.RNG")],
)
@pytest.mark.parametrize(
    "mux", [ShuffledMux, ChainMux, RoundRobinMux, lambda s, **k: StochasticMux(s, 1, 1, **k)]
)
def test_a_bad_random_state_is_refused_by_value(mux, random_state, message):
    with pytest.raises(PescadorError, match=f"random_state.*{message}"):
        mux(["a"], random_state=random_state)


def shuffled(random_state):
    return ShuffledMux(letters(3, 3, 3), random_state=random_state)


def show(stream, n=40, cycle=False):
    return "".join(stream(n, cycle=cycle))


@pytest.mark.parametrize(
    "random_state", [0, 5, np.int64(5), 2**200, np.random.SeedSequence(5, spawn_key=(1, 2))]
)
def test_a_fixed_random_state_gives_the_same_sequence_at_every_opening(random_state):
    mux = shuffled(random_state)
    assert show(mux) == show(mux) == show(shuffled(random_state)) != show(shuffled(1234))


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_each_opening_its_own_sequence_and_a_twin_gives_the_same_ones(make):
    mux, twin = shuffled(make(5)), shuffled(make(5))
    first, second = show(mux), show(mux)
    assert first != second
    assert [show(twin), show(twin)] == [first, second]


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_is_asked_once_when_the_mux_is_made(make):
    rng = make(5)
    mux = shuffled(rng)
    drawn = rng.random()
    show(mux)
    assert rng.random() != drawn
    other = make(5)
    shuffled(other)
    assert other.random() == drawn


AROUND = {
    "nothing": lambda mux: mux,
    "a Streamer": Streamer,
    "a ParallelStreamer": lambda mux: ParallelStreamer(mux, "serial"),
    "a mux with an int": lambda mux: ChainMux([mux], random_state=0),
    "a mux without a seed": lambda mux: ChainMux([mux, mux]),
    "a map": lambda mux: Streamer(epochs, mux, 2),
    "a map that takes many": lambda mux: Streamer(many_epochs, [1, mux], by_name={"x": mux}),
    "a partial": lambda mux: Streamer(functools.partial(epochs, n=2), mux),
    "a partial that holds it": lambda mux: Streamer(functools.partial(epochs, mux, 2)),
    "a chain over a function of it": lambda mux: ChainMux(Streamer(iter_twice, mux)),
}


def iter_twice(stream):
    yield from (stream, stream)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_each_opening_of_a_tree_is_one_of_the_generators_in_it(around, make):
    whole, stopped = around(shuffled(make(5))), around(shuffled(make(5)))
    expected = [list(whole(20)) for _ in range(3)]
    assert expected[0] != expected[1] != expected[2] != expected[0]
    # An opening counts where it begins, and not when it has come to its end.
    assert [list(stopped(n)) for n in (1, 2, 20)] == [expected[0][:1], expected[1][:2], expected[2]]
    assert list(around(shuffled(make(5))).cycle(2)) == expected[0][:2]


def test_a_cycle_is_one_opening():
    mux, twin = (
        StochasticMux("abcdefg", 3, None, mode="exhaustive", random_state=np.random.default_rng(5))
        for _ in range(2)
    )
    assert show(mux, 50, cycle=True)[:7] == show(twin)
    assert show(mux) == show(twin)


def test_generators_of_one_seed_are_counted_apart():
    def two():
        return [shuffled(np.random.default_rng(5)) for _ in range(2)]

    fresh, used = two(), two()
    show(used[0])
    expected, items = show(RoundRobinMux(fresh)), show(RoundRobinMux(used))
    assert items[1::2] == expected[1::2]
    assert items[::2] != expected[::2]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda mux: pickle.loads(pickle.dumps(mux))])
def test_a_copy_shares_the_count_and_a_deep_copy_begins_where_the_original_was(duplicate):
    mux, twin = shuffled(np.random.default_rng(5)), shuffled(np.random.default_rng(5))
    expected = [show(twin) for _ in range(4)]
    assert show(mux) == expected[0]
    copied = duplicate(mux)
    assert [show(mux), show(copy.copy(mux)), show(mux)] == expected[1:]
    assert show(copied) == expected[1]


def test_openings_on_many_threads_are_counted_once_each():
    rng = np.random.default_rng(5)
    muxes = [shuffled(rng), shuffled(rng)]
    tree, twin = RoundRobinMux(muxes, random_state=0), copy.deepcopy(RoundRobinMux(muxes, random_state=0))
    start, found = threading.Barrier(8), []

    def run():
        start.wait()
        found.extend([show(tree) for _ in range(20)])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(show(twin) for _ in range(160))


def test_the_entropy_of_a_tree_is_drawn_once_whatever_threads_ask_for_it(monkeypatch):
    seed = Seed()
    drawn, found = [], []

    def ask():
        found.append(seed.child(1).entropy)

    other = threading.Thread(target=ask)

    def draw(*args, **kwargs):
        drawn.append(1)
        if len(drawn) == 1:
            other.start()  # and so it asks while this one draws
            free = []
            third = threading.Thread(target=lambda: free.append(seeding.lock.acquire(blocking=False)))
            third.start()
            third.join()
            assert free == [False]
        return np.zeros(4, np.uint32)

    monkeypatch.setattr(np.random, "randint", draw)
    ask()
    other.join()
    assert drawn == [1]
    assert found[0] == found[1]


def test_seed_sequences_differ_by_their_spawn_key():
    children = np.random.SeedSequence(5).spawn(2)
    assert show(shuffled(children[0])) != show(shuffled(children[1])) != show(shuffled(5))


def test_numpy_global_seed_governs_what_has_no_random_state():
    streams = [shuffled(None), Streamer(noise, 9, rng=RNG), StochasticMux([shuffled(None)] * 3, 2, 4)]

    def run():
        np.random.seed(3)  # noqa: NPY002 -- this is about it
        return [list(stream(9)) for stream in streams for _ in range(2)]

    first = run()
    assert run() == first
    assert first[0] != first[1]  # without a seed of their own, two openings differ
    assert first[2] != first[3]


def test_a_stream_that_draws_nothing_leaves_the_global_state_alone():
    before = np.random.get_state()[2]  # noqa: NPY002 -- this is about it
    list(ChainMux([RoundRobinMux([Streamer(numbers, 3)] * 3), Streamer(numbers, 2)]).cycle(20))
    list(shuffled(0)(50))
    assert np.random.get_state()[2] == before  # noqa: NPY002 -- as above


# A tree of streams


def epochs(stream, n):
    for _ in range(n):
        yield "".join(stream.iterate(20))


def many_epochs(streams, by_name):
    yield from epochs(streams[1], 2)
    yield from epochs(by_name["x"], 2)


def test_the_activations_of_one_streamer_differ_and_are_reproducible():
    stream = Streamer(noise, 4, rng=RNG)
    mux = ChainMux([stream, stream], random_state=0)
    items = list(mux)
    assert items == list(mux)
    assert items[:4] != items[4:]


@pytest.mark.parametrize("own", [7, np.random.SeedSequence(7)], ids=str)
def test_a_nested_mux_with_a_seed_of_its_own_differs_between_activations_but_not_between_runs(own):
    inner = ShuffledMux(letters(1, 1, 1), random_state=own)
    mux = ChainMux([Streamer(epochs, inner, 1)] * 2, random_state=0)
    first, second = mux
    assert first != second
    assert list(mux) == [first, second]


def test_a_seed_of_its_own_shields_a_mux_from_the_seed_above():
    def run(own, above):
        return list(ChainMux([ShuffledMux(letters(1, 1, 1), random_state=own)], random_state=above)(30))

    assert run(7, 0) == run(7, 1)
    assert run(7, 0) != run(8, 0)
    assert run(None, 0) != run(None, 1)


def test_streams_among_arguments_belong_to_the_tree_also_inside_containers():
    def merge(one, many, by_name):
        for stream in [one, *many, by_name["x"]]:
            yield "".join(stream.iterate(20))

    inner = ShuffledMux(letters(1, 1))
    stream = Streamer(merge, inner, [inner, (inner, 5)[0]], by_name={"x": inner, "y": 3})
    first, second = (list(ChainMux([stream], random_state=seed)) for seed in (0, 1))
    assert first == list(ChainMux([stream], random_state=0))
    assert not set(first) & set(second)
    assert len(set(first)) == 4  # each argument has a seed of its own


def test_epochs_inside_a_generator_differ_and_are_reproducible():
    mux = ChainMux([Streamer(epochs, ShuffledMux(letters(1, 1)), 3)] * 2, random_state=0)
    assert len(set(mux)) == 6
    assert list(mux) == list(mux)


def test_cycle_begins_with_the_epoch_of_iterate_and_gives_each_other_one_its_own_order():
    mux = StochasticMux(letters(1, 1, 1, 1, 1, 1), 3, None, mode="exhaustive", random_state=0)
    epochs = [mux(48, cycle=True) for _ in range(2)]
    first, again = ("".join(items) for items in epochs)
    assert first == again
    parts = [first[i : i + 6] for i in range(0, 48, 6)]
    assert parts[0] == "".join(mux)
    assert len(set(parts)) > 6
    assert all(sorted(part) == list("abcdef") for part in parts)


# RNG


def test_the_marker_becomes_a_fresh_generator_of_the_activation():
    def show_arguments(*args, **kwargs):
        yield from [*args, *kwargs.values()]

    stream = Streamer(show_arguments, RNG, [RNG, 1], x={"rng": RNG})
    one, [two, number], named = ChainMux([stream], random_state=0)
    generators = [one, two, named["rng"]]
    assert all(isinstance(generator, np.random.Generator) for generator in generators)
    assert number == 1
    assert len({generator.random() for generator in generators}) == 3
    assert stream.args[0] is RNG
    assert stream.args[1][0] is RNG


def test_the_marker_is_one_object_also_after_copies_and_pickles():
    assert pickle.loads(pickle.dumps(RNG)) is copy.copy(RNG) is copy.deepcopy(RNG) is RNG
    assert repr(RNG) == "pescador.RNG"


def test_the_generator_of_an_activation_is_pinned():
    mux = ChainMux([Streamer(noise, 5, rng=RNG)] * 2, random_state=0)
    assert list(mux) == [110, 273, 333, 530, 296, 345, 895, 884, 777, 680]


def test_the_activation_k_has_the_documented_seed():
    expected = Seed(0, (3, 1, 5, 0)).generator()  # STREAM 1, GENERATOR 0
    items = list(ChainMux([Streamer(noise, 5, rng=RNG)] * 2, random_state=0))
    assert items[5:] == [int(expected.integers(1000)) for _ in range(5)]


def test_a_seed_source_puts_what_it_inherited_below_its_own_entropy():
    inherited = Seed(1, (3, 5))
    assert SeedSource().resolve(inherited) is inherited
    resolved = SeedSource(9).resolve(inherited)
    assert (resolved.entropy, resolved.path) == (9, (3, 5))


FORK = """
import os, sys, threading
import numpy as np
from pescador import ParallelStreamer, ShuffledMux, Streamer, seeding

lock = {"NumPy's": np.random.mtrand._rand._bit_generator.lock, "ours": seeding.lock}[sys.argv[1]]
is_held, forks = threading.Event(), threading.Event()
os.register_at_fork(before=forks.set)  # what is registered last runs first


def hold():
    with lock:
        is_held.set()
        forks.wait()


threading.Thread(target=hold).start()
is_held.wait()
with ParallelStreamer(Streamer(range(3)), start_method="fork") as stream:
    pool = stream._pool.get()  # forks while the other thread holds the lock
    print(list(ShuffledMux([stream], random_state=0)(3)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("whose", ["NumPy's", "ours"])
def test_a_fork_waits_for_threads_that_draw(whose):
    command = [sys.executable, "-c", FORK, whose]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == b"[0, 1, 2]\n"
