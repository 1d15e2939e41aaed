import numpy as np
import pytest
from scipy import stats

from pescador import ShuffledMux, Streamer

from ..streams import Counting, constant, letters

FALSE_ALARM = 1e-6  # probability that a statistical test fails, with another seed


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, "ebacaebeaeeacaccbccbebbcccbacaee"),
        ([2, 1, 0, 2, 3], "ebeaeaebeeaeeaeaaeaeebeeebaaeeea"),
    ],
)
def test_the_sequence_of_a_seed_is_pinned(weights, expected):
    mux = ShuffledMux(letters(6, 3, 5, 0, 4), weights, random_state=0)
    assert "".join(mux(32)) == expected


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3, 4], [1e-12, 1, 1e3, 5e2], [0, 1, 0, 2]])
def test_samples_are_drawn_in_proportion_to_the_weights(weights):
    n = 50_000
    mux = ShuffledMux([Streamer(constant, i) for i in range(4)], weights, random_state=0)
    counts = np.bincount(list(mux(n)), minlength=4)
    expected = n * np.array(weights) / np.sum(weights)
    common = expected > 5
    assert counts[~common].sum() <= 20
    assert (
        stats.chisquare(
            counts[common], counts[common].sum() * expected[common] / expected[common].sum()
        ).pvalue
        > FALSE_ALARM
    )


def test_successive_samples_are_independent():
    mux = ShuffledMux([Streamer(constant, i) for i in range(3)], random_state=0)
    items = np.array(list(mux(60_000)))
    pairs = np.bincount(3 * items[::2] + items[1::2], minlength=9)
    assert stats.chisquare(pairs).pvalue > FALSE_ALARM


def test_all_streams_are_active_and_ended_ones_restart():
    sources = [Counting(3) for _ in range(4)]
    items = ShuffledMux(sources, random_state=0).iterate()
    for _ in range(200):
        next(items)
    assert [source.running for source in sources] == [1] * 4
    assert all(source.opened > 5 for source in sources)


def test_empty_streams_drop_out_after_one_try():
    sources = [Counting(0), Counting(1, "a"), Counting(0)]
    assert "".join(ShuffledMux(sources, random_state=0)(50)) == "a" * 50
    assert (sources[0].opened, sources[2].opened) == (1, 1)


def test_the_last_of_many_streams_is_found_however_light_it_is():
    streams = [[]] * 999 + [Counting(3, "x")]
    assert "".join(ShuffledMux(streams, random_state=0)(9)) == "x" * 9
    assert "".join(ShuffledMux(streams, [1e9] * 999 + [1e-12], random_state=0)(9)) == "x" * 9


def test_a_one_shot_iterator_drops_out_when_it_is_used_up():
    assert sorted(ShuffledMux([iter(range(3)), iter(range(3, 6))], random_state=0)) == list(range(6))


# Weights changed while it runs


@pytest.mark.parametrize("before", [None, [1, 1, 1]])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
def test_changed_weights_hold_from_the_very_next_draw(before, n):
    mux = ShuffledMux([Streamer(constant, i) for i in range(3)], before, random_state=0)
    items = mux.iterate()
    unchanged = [next(items) for _ in range(n + 1)]
    mux.weights = [0, 0, 1]
    assert [next(items) for _ in range(50)] == [2] * 50
    mux.weights = [0, 1, 0]
    assert [next(items) for _ in range(50)] == [1] * 50
    mux.weights = None
    assert set(np.unique([next(items) for _ in range(100)])) == {0, 1, 2}
    assert unchanged == list(ShuffledMux(mux.streamers, before, random_state=0)(n + 1))


def test_changed_weights_hold_for_all_running_iterations():
    mux = ShuffledMux("ab", random_state=0)
    running = [mux.iterate(), mux.cycle(), iter(Streamer(mux))]
    for items in running:
        next(items)
    mux.weights = [0, 1]
    assert "".join(next(items) for items in running for _ in range(20)) == "b" * 60


def test_streams_found_empty_stay_out_when_the_weights_change():
    empty = Counting(0)
    mux = ShuffledMux([empty, "b", "c"], random_state=0)
    items = mux.iterate()
    "".join(next(items) for _ in range(50))
    mux.weights = [1e9, 1, 0]
    assert "".join(next(items) for _ in range(20)) == "b" * 20
    assert empty.opened == 1
    mux.weights = [1, 0, 0]
    assert list(items) == []


def test_the_size_of_the_blocks_does_not_change_the_sequence(monkeypatch):
    def run():
        mux = ShuffledMux(letters(3, 0, 5, 1), [1, 2, 3, 4], random_state=0)
        items = mux.iterate(200)
        first = "".join(next(items) for _ in range(70))
        mux.weights = [4, 3, 2, 1]
        return first + "".join(items)

    expected = run()
    for size in (1, 3, 1000):
        monkeypatch.setattr("pescador.sampling.FIRST_BLOCK", size)
        monkeypatch.setattr("pescador.sampling.LAST_BLOCK", size)
        assert run() == expected
