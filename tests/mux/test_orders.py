"""Orders of slots by weight: their distributions are those that they should be.

Seeds are fixed, and for another seed a test fails with a probability of 1e-6.
"""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from pescador.mux import orders
from pescador.mux.orders import Permutation, systematic_sample

from ..test_sampling import HARD, hard, shares

FALSE_ALARM = 1e-6

# Permutation


def drawn(weights, n):
    rng = np.random.default_rng(4)
    for _ in range(n):
        order = Permutation(len(weights), np.array(weights), rng)
        yield tuple(order.pop() for _ in range(len(order)))


def successive(weights, order):
    """Return the probability of drawing `order`, one after the other by weight."""
    probability, rest = 1.0, math.fsum(weights)
    for slot in order:
        probability *= weights[slot] / rest
        rest -= weights[slot]
    return probability


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0, 4.0], [1.0] * 4, [8.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
def test_permutations_have_the_probability_of_successive_draws(weights):
    n = 20_000
    counts = {}
    for order in drawn(weights, n):
        counts[order] = counts.get(order, 0) + 1
    expected = [n * successive(weights, order) for order in counts]
    assert sum(expected) == pytest.approx(n)  # so no order is missing
    assert stats.chisquare(list(counts.values()), expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize("weights", HARD.values(), ids=HARD.keys())
def test_a_permutation_holds_each_slot_of_positive_weight_once(weights):
    (order,) = drawn(weights, 1)
    assert sorted(order) == np.flatnonzero(weights).tolist()


def test_a_permutation_of_huge_differences_is_in_order_of_weight():
    weights = [5e-324, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e308]
    assert all(order == (6, 5, 4, 3, 2, 1, 0) for order in drawn(weights, 100))


def test_what_is_left_of_a_permutation_can_be_drawn_by_other_weights():
    order = Permutation(200, np.array([1.0] * 150 + [0.0] * 50), np.random.default_rng(0))
    first = [order.pop() for _ in range(30)]
    assert max(first) < 150
    order.reweigh(np.array([1e-300] * 150 + [1.0] * 50))
    assert len(order) == 170
    assert sorted(order.pop() for _ in range(50)) == list(range(150, 200))
    order.reweigh(np.array([0.0] * 200))
    assert len(order) == 0
    order.reweigh(None)
    assert sorted(first + [order.pop() for _ in range(len(order))]) == list(range(150))


# Systematic samples


@hard
@pytest.mark.parametrize("size", [1, 2, 7, 100, 3000])
def test_each_slot_is_in_a_systematic_sample_as_often_as_its_share_says(weights, size):
    expected = size * shares(weights)
    low, high = np.floor(expected - 1e-9), np.ceil(expected + 1e-9)
    for seed in range(20):
        found = systematic_sample(len(weights), np.array(weights), size, np.random.default_rng(seed))
        counts = np.bincount(found, minlength=len(weights))
        assert counts.sum() == size
        assert ((low <= counts) & (counts <= high)).all()


@pytest.mark.parametrize("n", [1, 3, 50])
@pytest.mark.parametrize("size", [1, 3, 49, 50, 51, 1000])
def test_equal_weights_are_those_that_are_not_given(n, size):
    for weights in (None, np.full(n, 0.1)):
        counts = np.bincount(systematic_sample(n, weights, size, np.random.default_rng(0)), minlength=n)
        assert counts.sum() == size
        assert {*counts} <= {size // n, -(-size // n)}


@pytest.mark.parametrize("size", [3, 600])
def test_the_cost_of_a_systematic_sample_of_equal_weights_is_that_of_its_size(size):
    """Nothing of the length of all slots is made."""
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        systematic_sample(10**7, None, size, rng)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bins", [1, 2, 7, 64])
def test_the_number_of_bins_does_not_change_the_distribution(bins, monkeypatch):
    monkeypatch.setattr(orders, "SLOTS_PER_BIN", 64 // bins)
    weights = np.arange(64.0)
    rng = np.random.default_rng(1)
    samples = [systematic_sample(64, weights, 5, rng) for _ in range(4000)]
    counts = np.bincount([sample[0] for sample in samples], minlength=64)[1:]
    assert stats.chisquare(counts, weights[1:] / weights.sum() * 4000).pvalue > FALSE_ALARM
    # the first and the last of a sample are in random order
    assert abs(np.mean([sample[0] > sample[-1] for sample in samples]) - 0.5) < 5 * 0.5 / np.sqrt(4000)
