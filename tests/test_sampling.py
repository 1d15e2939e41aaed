"""The samplers, which have to be exact.

A sampler turns a uniform number into a slot, so its exact distribution can be read off: the slots of
an even grid of numbers.
"""

from fractions import Fraction

import numpy as np
import pytest

from pescador import sampling
from pescador.exceptions import PescadorError
from pescador.sampling import Categorical, Draws, SumTree, check_weights

HARD = {
    "one": [3.0],
    "equal": [1.0] * 7,
    "24 orders of magnitude": list(10.0 ** np.arange(-12, 13)),
    "mostly zero": [0.0] * 500 + [2.0] + [0.0] * 300 + [1.0] + [0.0],
    "one survivor": [0.0] * 63 + [1e-9] + [0.0] * 64,
    "subnormal": [5e-324, 0.0, 1.5e-323],
    "huge": [1e308, 1e308, 1e308, 0.5e308],
    "huge and subnormal": [1e308, 5e-324, 1e308],
    "ascending": list(np.arange(33.0)),
    "no power of two": list(np.random.default_rng(0).exponential(size=1000)),
}
hard = pytest.mark.parametrize("weights", HARD.values(), ids=HARD.keys())


def shares(weights):
    """Return the exact distribution, rounded once."""
    exact = [Fraction(weight) for weight in weights]
    total = sum(exact)
    return np.array([float(weight / total) for weight in exact])


def on_grid(sampler, n=10_000):
    """Return how often each slot comes from n evenly spaced numbers, as shares."""
    found = sampler.locate((np.arange(n) + 0.5) / n)
    if sampler.find is not None:
        found = [sampler.find(uniform) for uniform in found]
    return np.bincount(found) / n


def tree_of(weights):
    tree = SumTree(len(weights))
    for slot, weight in enumerate(weights):
        tree.set(slot, weight)
    return tree


@hard
@pytest.mark.parametrize("sampler", [lambda w: Categorical(len(w), np.array(w)), tree_of])
def test_an_even_grid_of_numbers_gives_the_true_distribution(sampler, weights):
    got = on_grid(sampler(weights))
    expected = shares(weights)[: len(got)]
    assert got == pytest.approx(expected, abs=1.01e-4)  # a slot's edges are off by a grid step at most
    assert not got[np.array(weights[: len(got)]) == 0].any()


@hard
@pytest.mark.parametrize("sampler", [lambda w: Categorical(len(w), np.array(w)), tree_of])
def test_the_extreme_numbers_give_slots_that_weigh_something(sampler, weights):
    sampler = sampler(weights)
    found = sampler.locate(np.array([0.0, 5e-324, 1 - 2**-53]))
    slots = found if sampler.find is None else [sampler.find(uniform) for uniform in found]
    assert all(weights[slot] > 0 for slot in slots)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 1_000_003])
def test_equal_weights_reach_from_the_first_slot_to_the_last(n):
    assert Categorical(n).locate(np.array([0.0, 1 - 2**-53])) == [0, n - 1]


@hard
def test_categorical_is_exact_after_any_slots_were_dropped(weights):
    rng = np.random.default_rng(1)
    choice, left = Categorical(len(weights), np.array(weights)), np.array(weights)
    for slot in rng.permutation(len(weights))[: len(weights) * 2 // 3]:
        if np.count_nonzero(left) <= (left[slot] > 0):
            continue
        choice.drop(slot)
        left[slot] = 0
    found = np.array(choice.locate((np.arange(20_000) + 0.5) / 20_000))
    accepted = found[[slot in choice for slot in found]]  # the others are to be rejected
    assert len(accepted) >= 9_990
    assert choice.n_live == np.count_nonzero(left)
    got = np.bincount(accepted, minlength=len(weights)) / len(accepted)
    assert got == pytest.approx(shares(left), abs=3e-4)


def test_categorical_of_equal_weights_can_lose_all_slots_but_one():
    choice = Categorical(1000)
    for slot in range(1000):
        if slot != 700:
            choice.drop(slot)
    assert choice.n_live == 1
    assert set(choice.locate(np.linspace(0, 0.99, 50))) <= {700, *range(701, 1000)}
    assert not choice.drop(5)  # a second time, which changes nothing
    assert choice.n_live == 1


def test_a_rejected_draw_is_never_more_likely_than_a_usable_one():
    rng = np.random.default_rng(2)
    weights = rng.exponential(size=300) * (rng.random(300) < 0.7)
    choice = Categorical(300, weights)
    for slot in rng.permutation(300)[:-20]:
        choice.drop(slot)
        found = choice.locate((np.arange(1000) + 0.5) / 1000)
        assert sum(slot in choice for slot in found) >= 499


# SumTree


def test_a_million_changes_of_a_sum_tree_leave_no_drift():
    rng = np.random.default_rng(3)
    n = 100
    tree, slots = SumTree(n), rng.integers(n, size=1_000_000).tolist()
    changes = 10.0 ** rng.uniform(-12, 12, size=1_000_000)
    last = np.zeros(n)
    for slot, weight in zip(slots, changes.tolist(), strict=True):
        tree.set(slot, weight)
        last[slot] = weight
    fresh = tree_of(last)
    assert [tree.share(slot) for slot in range(n)] == [fresh.share(slot) for slot in range(n)]
    assert [tree.share(slot) for slot in range(n)] == pytest.approx(shares(last), rel=1e-14)


@pytest.mark.parametrize("path", [[1e308, 5e-324], [5e-324, 1e308, 5e-324], [1.0, 0.0, 5e-324, 1e308, 1.0]])
def test_a_sum_tree_stays_exact_whatever_its_weights_were_before(path):
    tree = SumTree(3)
    for weight in path:
        for slot in range(3):
            tree.set(slot, weight)
    tree.set(1, 3 * path[-1] if path[-1] < 1e300 else path[-1] / 4)
    expected = [0.2, 0.6, 0.2] if path[-1] < 1e300 else [4 / 9, 1 / 9, 4 / 9]
    assert [tree.share(slot) for slot in range(3)] == pytest.approx(expected, rel=1e-15)


# Draws


def test_the_sequence_does_not_depend_on_the_size_of_the_blocks(monkeypatch):
    def draw():
        draws = Draws(np.random.default_rng(5), Categorical(1000))
        slots = [next(draws.slots) for _ in range(50)]
        slots.append(draws.uniform())
        return slots + [next(draws.slots) for _ in range(500)]

    expected = draw()
    for first, last in [(1, 1), (3, 7), (1000, 1000)]:
        monkeypatch.setattr(sampling, "FIRST_BLOCK", first)
        monkeypatch.setattr(sampling, "LAST_BLOCK", last)
        assert draw() == expected


@pytest.mark.parametrize("n_before", [0, 1, 15, 16, 17, 40])
@pytest.mark.parametrize("after", [lambda: Categorical(10), lambda: tree_of([1.0] * 10)])
def test_remap_applies_to_the_very_next_number(n_before, after):
    uniforms = np.random.default_rng(6).random(100)
    draws = Draws(np.random.default_rng(6), Categorical(1000))
    slots = [next(draws.slots) for _ in range(n_before)]
    draws.sampler = after()
    draws.remap()
    slots += [next(draws.slots) for _ in range(100 - n_before)]
    assert slots == [int(u * 1000) for u in uniforms[:n_before]] + [int(u * 10) for u in uniforms[n_before:]]


# check_weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], r"shape \(3,\) for 2"),
        ([[1], [2]], r"shape \(2, 1\)"),
        (1.0, r"shape \(\)"),
        ([1, -2], r"weights\[1\] is -2"),
        ([float("nan"), 1], r"weights\[0\] is nan"),
        ([1, float("inf")], r"weights\[1\] is inf"),
        ([-1, -1], "1 more"),
        ([0, 0], "all weights are 0"),
        (["a", "b"], "must be numbers.*'a'"),
        ([[1, 2], 3], "must be numbers"),
        (object(), "must be numbers.*object"),
    ],
)
def test_weights_that_cannot_work_are_refused_by_value(weights, message):
    with pytest.raises(PescadorError, match=message):
        check_weights(weights, 2)


def test_checked_weights_are_a_read_only_copy():
    weights = np.array([1.0, 2.0])
    checked = check_weights(weights, 2)
    weights[0] = 5
    assert checked.tolist() == [1, 2]
    assert not checked.flags.writeable
