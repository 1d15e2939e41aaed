"""What a seed gives stays what it is: the first items of trees of all kinds, in tests/golden/sequences.json.

A state goes on only where seeds give the same, and says by ``pescador.checkpoint.SEQUENCES`` where that is.
So whoever changes what any seed gives raises that number, and writes the file anew::

    python -m tests.test_sequences

That refuses to change a sequence under the same number. A new tree may be added under it.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pescador import (
    RNG,
    ChainMux,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
    buffer_stream,
    cache,
    checkpoint,
    patches,
    rows,
)

from .streams import Counting

GOLDEN = Path(__file__).with_name("golden") / "sequences.json"
LENGTH = 40

ADVICE = (
    "whoever changes what a seed gives raises pescador.checkpoint.SEQUENCES, for a state that was saved "
    "before cannot go on from there, and writes the file anew: python -m tests.test_sequences"
)


def tagged(i, n, rng):
    """Items that tell which stream they are of, and what it drew."""
    for _ in range(n):
        yield 1000 * i + int(rng.integers(1000))


def streams(*lengths):
    return [Streamer(tagged, i, n, rng=RNG) for i, n in enumerate(lengths)]


def stochastic(weights=None, *, n_active=3, rate=4, lengths=(30, 5, 0, 20, 1, 12), seed=0, **options):
    return StochasticMux(streams(*lengths), n_active, rate, weights, random_state=seed, **options)


def reweighed(mux, *changes):
    """Items of a mux whose weights are changed after every ten."""
    items = iter(mux)
    for weights in (*changes, mux.weights):
        yield from islice(items, 10)
        mux.weights = weights


def epochs(stream, other):
    """A generator that opens the streams among its arguments again and again."""
    while True:
        yield from stream.iterate(3)
        yield from other.iterate(2)


def two_generators(one, other):
    while True:
        yield [int(one.integers(1000)), int(other[0].integers(1000))]


def chain_of_streams(rng):
    while True:
        yield Streamer(tagged, int(rng.integers(9)), 3, RNG)


def openings(make):
    """The beginnings of four openings of one stream."""
    stream = make()
    for _ in range(4):
        yield from stream.iterate(10)


def seeded_globally(stream):
    for epoch in range(4):
        np.random.seed(epoch)  # noqa: NPY002 -- this is about it
        yield from stream.iterate(10)


def lists(stream):
    """Items of arrays, as JSON has them."""
    for item in stream:
        yield {key: np.asarray(value).tolist() for key, value in item.items()}


W = [1, 2, 0, 4, 1, 3]
MANY = [9] * 1000
DATA = {"x": np.arange(600).reshape(200, 3), "y": np.arange(200)}
SEEDS = {
    "large": 2**100,
    "sequence": np.random.SeedSequence([3, 2**40], spawn_key=(5, 6)),
    "spawned": np.random.SeedSequence(4).spawn(3)[2],
}

SEQUENCES = {
    "shuffled": lambda: ShuffledMux(streams(30, 5, 0, 20), random_state=0),
    "shuffled, weights": lambda: ShuffledMux(streams(30, 5, 0, 20), [1, 3, 2, 0.5], random_state=0),
    "shuffled, many": lambda: ShuffledMux(streams(*MANY), np.arange(1000), random_state=0),
    "round robin": lambda: RoundRobinMux(streams(30, 5, 0, 20), random_state=0),
    "round robin, cycle": lambda: RoundRobinMux(streams(3, 5, 0, 2), "cycle", random_state=0),
    "round robin, permuted": lambda: RoundRobinMux(streams(3, 5, 0, 2), "permuted_cycle", random_state=0),
    "chain": lambda: ChainMux(streams(3, 5, 0, 20, 30), random_state=0),
    "chain, cycle": lambda: ChainMux(streams(3, 5, 0), "cycle", random_state=0),
    "chain of a generator": lambda: ChainMux(Streamer(chain_of_streams, RNG), random_state=0),
    "stochastic": stochastic,
    "stochastic, weights": lambda: stochastic(W),
    "stochastic, constant": lambda: stochastic(dist="constant"),
    "stochastic, binomial": lambda: stochastic(dist="binomial", rate=6.5),
    "stochastic, to the end": lambda: stochastic(rate=None),
    "stochastic, more active than there are": lambda: stochastic(W, n_active=20),
    "stochastic, not pruned": lambda: stochastic(prune_empty_streams=False),
    "stochastic, many": lambda: stochastic(lengths=MANY, n_active=30),
    "stochastic, many weights": lambda: stochastic(np.arange(1000) % 7, lengths=MANY, n_active=30),
    "single": lambda: stochastic(mode="single_active"),
    "single, weights": lambda: stochastic(W, mode="single_active"),
    "single, binomial weights": lambda: stochastic(W, mode="single_active", dist="binomial"),
    "single, all": lambda: stochastic(W, mode="single_active", n_active=6),
    "exhaustive": lambda: stochastic(mode="exhaustive", rate=20),
    "exhaustive, weights": lambda: stochastic(W, mode="exhaustive", rate=20),
    "exhaustive, many weights": lambda: stochastic(np.arange(1000), lengths=MANY, mode="exhaustive"),
    "weights changed": lambda: reweighed(stochastic(W), [1] * 6, None, W[::-1]),
    "weights changed, single": lambda: reweighed(stochastic(mode="single_active"), W, W[::-1], None),
    "weights changed, exhaustive": lambda: reweighed(
        stochastic(lengths=MANY, mode="exhaustive"), np.arange(1000), None
    ),
    "weights changed, shuffled": lambda: reweighed(
        ShuffledMux(streams(30, 5, 20), random_state=0), [0, 1, 2], [2, 1, 0]
    ),
    "nested": lambda: ShuffledMux(
        [stochastic(W), stochastic(seed=None), RoundRobinMux(streams(4, 4), "permuted_cycle")], random_state=1
    ),
    "streamers of streamers": lambda: ChainMux(
        [Streamer(stochastic(seed=None), 15), Streamer(ShuffledMux(streams(4, 4)), 15, cycle=True)],
        random_state=1,
    ),
    "epochs": lambda: stochastic(mode="exhaustive").cycle(),
    "epochs of a method": lambda: ChainMux([Streamer(ChainMux(streams(4, 3)).cycle)], random_state=0),
    "epochs in a generator": lambda: ChainMux(
        [Streamer(epochs, ShuffledMux(streams(9, 9)), other=Streamer(tagged, 5, 9, RNG))], random_state=0
    ),
    "two generators": lambda: ChainMux([Streamer(two_generators, RNG, [RNG, 1])], random_state=0),
    **{f"seed, {name}": lambda seed=seed: stochastic(seed=seed) for name, seed in SEEDS.items()},
    "openings of a Generator": lambda: openings(lambda: stochastic(seed=np.random.default_rng(0))),
    "openings of a RandomState": lambda: openings(
        lambda: ChainMux([stochastic(seed=np.random.RandomState(0))], random_state=3)
    ),
    "global seed": lambda: seeded_globally(stochastic(seed=None)),
    "cache": lambda: ChainMux([Streamer(cache, Counting(), 4, 0.3, RNG)], random_state=0),
    "cache by itself": lambda: cache(range(100), 4, 0.3, 7),
    "rows": lambda: lists(ChainMux([Streamer(rows, DATA, rng=RNG)], random_state=0)),
    "batches of rows": lambda: lists(rows(DATA, 2, rng=7)),
    "patches": lambda: lists(ChainMux([Streamer(patches, DATA, 2, rng=RNG)], random_state=0)),
    "batches": lambda: lists(
        ChainMux(
            [Streamer(buffer_stream, Streamer(map, lambda i: {"i": i}, stochastic(W, seed=None)), 3)],
            random_state=0,
        )
    ),
}


def sequence(name):
    return json.loads(json.dumps(list(islice(SEQUENCES[name](), LENGTH))))


def golden():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_seed_gives_what_it_gave(name):
    found = golden()
    assert found["version"] == checkpoint.SEQUENCES, ADVICE
    expected = found["sequences"].get(name)
    assert sequence(name) == expected, ADVICE


def test_no_sequence_is_lost():
    assert list(golden()["sequences"]) == list(SEQUENCES), ADVICE


def test_the_file_is_not_written_anew_without_a_new_version(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.GOLDEN", tmp_path / "sequences.json")
    monkeypatch.setattr(f"{__name__}.SEQUENCES", {"one": lambda: [1, 2], "other": lambda: [3]})
    main()
    SEQUENCES["new"] = lambda: [4]
    main()
    assert golden() == {
        "version": checkpoint.SEQUENCES,
        "sequences": {"one": [1, 2], "other": [3], "new": [4]},
    }
    SEQUENCES["one"] = lambda: [2, 1]
    with pytest.raises(SystemExit, match=r"would change: one\. But .*raises pescador\.checkpoint\.SEQUENCES"):
        main()
    monkeypatch.setattr(checkpoint, "SEQUENCES", checkpoint.SEQUENCES + 1)
    main()
    assert golden()["version"] == checkpoint.SEQUENCES
    assert sequence("one") == golden()["sequences"]["one"] == [2, 1]


def main():
    """Write the file anew, unless a sequence of this version would change."""
    found = {name: sequence(name) for name in SEQUENCES}
    if GOLDEN.exists() and (before := golden())["version"] == checkpoint.SEQUENCES:
        changed = [name for name, items in before["sequences"].items() if found.get(name) != items]
        if changed:
            sys.exit(f"these sequences would change: {'; '.join(changed)}. But {ADVICE}")
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(items)}" for name, items in found.items())
    GOLDEN.parent.mkdir(exist_ok=True)
    text = f'{{"version": {checkpoint.SEQUENCES}, "sequences": {{\n{lines}\n}}}}\n'
    GOLDEN.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
