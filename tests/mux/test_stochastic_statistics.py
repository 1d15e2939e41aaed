"""Whether the samples of a StochasticMux have the distribution that they should.

Seeds are fixed. With another seed, each of these tests fails with a probability of about FALSE_ALARM.
"""

import numpy as np
import pytest
from scipy import stats

from pescador import StochasticMux, Streamer
from pescador.mux.orders import systematic_sample

from ..streams import Counting, constant

FALSE_ALARM = 1e-6


def constants(n):
    return [Streamer(constant, i) for i in range(n)]


def chi_square(counts, expected, design_effect=1.0):
    """Assert that counts are as expected, where one of them stands for 1/design_effect independent ones."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], expected[expected > 0] * counts.sum() / expected.sum()
    statistic = ((counts - expected) ** 2 / expected).sum() / design_effect
    assert stats.chi2.sf(statistic, len(counts) - 1) > FALSE_ALARM


WEIGHTS = [[1.0] * 10, np.arange(10.0), 2.0 ** np.arange(10), [0, 1, 0, 50, 0, 1, 1, 1, 1, 1]]
weightings = pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "rising", "geometric", "one heavy"])


@weightings
@pytest.mark.parametrize("n_active", [1, 3, 20])
def test_with_replacement_streams_are_activated_in_proportion_to_their_weights(weights, n_active):
    sources = [Counting(value=i) for i in range(10)]
    list(StochasticMux(sources, n_active, 8, weights, random_state=0)(80_000))
    chi_square([source.opened for source in sources], weights)


@weightings
@pytest.mark.parametrize(
    # mean of the squared budget over its mean: (variance + mean**2) / mean
    ("dist", "design_effect"),
    [("poisson", (7 + 64) / 8), ("constant", 8.0), ("binomial", (7 * 2 / 3 + 64) / 8)],
)
def test_with_replacement_the_weights_are_the_proportions_of_samples(weights, dist, design_effect):
    mux = StochasticMux(constants(10), 3, 8, weights, random_state=1, dist=dist)
    counts = np.bincount(list(mux(160_000)), minlength=10)
    chi_square(counts, weights, design_effect)


FIRST = [
    (10, None, 3),
    (10, None, 25),
    (10, np.arange(10.0), 3),
    (10, 2.0 ** np.arange(10), 4),
    (600, np.arange(600.0), 5),  # in several bins
]


@pytest.mark.parametrize(("n", "weights", "n_active"), FIRST)
def test_the_first_working_set_is_what_the_weights_say_on_average_and_in_random_order(n, weights, n_active):
    expected = np.ones(n) if weights is None else weights
    rng = np.random.default_rng(7)
    sets = np.array([systematic_sample(n, weights, n_active, rng) for _ in range(4000)])
    for sample in sets.T:  # of any slot alone, which is an independent draw each time
        chi_square(np.bincount(sample * 10 // n, minlength=10), expected.reshape(10, -1).sum(axis=1))


@pytest.mark.parametrize("weights", [None, np.ones(1024), np.tile([1.0, 3.0], 512)])
def test_which_streams_come_together_does_not_depend_on_the_order_in_which_they_were_given(weights):
    """Every second one is of one kind, which a systematic sample in that order would take alone."""
    rng = np.random.default_rng(8)
    kinds = [sum(i % 2 for i in systematic_sample(1024, weights, 4, rng)) for _ in range(4000)]
    share = 0.75 if weights is not None and weights[1] == 3 else 0.5
    # hypergeometric at most: 4 of 1024 is as good as independent, up to a variance 1 - 3/1023 times as large
    chi_square(np.bincount(kinds, minlength=5), stats.binom(4, share).pmf(range(5)))


def test_with_replacement_active_streams_are_drawn_equally_whatever_their_weights():
    for seed in range(50):
        items = list(StochasticMux(constants(2), 2, None, [5, 5 + 1e-9], random_state=seed)(400))
        assert 0.37 < np.mean(items) < 0.63  # 5 standard deviations
    means = [
        np.mean(list(StochasticMux(constants(2), 2, None, [1, 5], random_state=seed)(400)))
        for seed in range(50)
    ]
    mixed = [mean for mean in means if mean < 1]  # elsewhere both slots hold the second stream
    assert 1 < len(mixed) < 34  # 50/3 on average; outside with a probability of 6e-7
    assert all(0.37 < mean < 0.63 for mean in mixed)  # 5 standard deviations


@pytest.mark.parametrize("mode", ["single_active", "exhaustive"])
@pytest.mark.parametrize("weights", [[1.0, 2, 3, 4], [1e-3, 1, 1, 0], [100, 1, 1, 1], None])
def test_elsewhere_active_streams_are_drawn_by_weight(mode, weights):
    n_live = 4 if weights is None else np.count_nonzero(weights)
    mux = StochasticMux(constants(4), n_live, None, weights, mode, random_state=3)
    counts = np.bincount(list(mux(40_000)), minlength=4)
    chi_square(counts, [1] * 4 if weights is None else weights)


def test_single_active_activates_by_weight_among_those_that_are_not_active():
    # With one slot of budget 1, none is active when the next one is chosen.
    weights = np.array([1.0, 2, 3, 4])
    sources = [Counting(value=i) for i in range(4)]
    mux = StochasticMux(sources, 1, 1, weights, "single_active", random_state=4, dist="constant")
    list(mux(40_000))
    chi_square([source.opened for source in sources], weights)


def test_exhaustive_opens_first_by_weight():
    weights = [1.0, 2, 3, 0, 4]
    firsts = [
        next(iter(StochasticMux(constants(5), 1, 1, weights, "exhaustive", random_state=s)))
        for s in range(5000)
    ]
    chi_square(np.bincount(firsts, minlength=5), weights)


# Budgets

DISTRIBUTIONS = {
    "poisson": stats.poisson(7, loc=1),
    "constant": None,
    "binomial": stats.binom(28, 1 / 4, loc=1),  # with a share of 1/4
}


def check_budgets(budgets, dist):
    n = len(budgets)
    assert budgets.min() >= 1
    if dist == "constant":
        assert (budgets == 8).all()
        return
    law = DISTRIBUTIONS[dist]
    assert law.mean() == 8
    assert abs(budgets.mean() - 8) < 5 * np.sqrt(law.var() / n)
    # classes that hold 5 of n or more, and the tails
    edges = np.arange(law.ppf(10 / n), law.isf(10 / n))
    expected = np.diff(np.concatenate([[0], law.cdf(edges), [1]])) * n
    counts = np.bincount(np.searchsorted(edges, budgets), minlength=len(expected))
    chi_square(counts, expected)


@pytest.mark.parametrize("dist", DISTRIBUTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_budgets_have_mean_rate_and_a_minimum_of_1(dist, weighted):
    n = 10_000
    weights = np.ones(n) if weighted else None
    mux = StochasticMux(constants(n), 4, 8, weights, "exhaustive", random_state=5, dist=dist)
    check_budgets(np.bincount(list(mux)), dist)


@pytest.mark.parametrize("dist", DISTRIBUTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_budgets_of_the_first_working_set_are_as_any_others(dist, weighted):
    weights = np.ones(4) if weighted else None
    budgets = [
        np.bincount(
            list(StochasticMux(constants(4), 4, 8, weights, "exhaustive", random_state=seed, dist=dist))
        )
        for seed in range(700)
    ]
    check_budgets(np.concatenate(budgets), dist)


def test_a_binomial_budget_has_the_variance_of_the_share_of_its_stream():
    # The heavy stream has 0.9 of the draws, so its budget varies by 10 * (1 - 0.9).
    heavy, light = [], []
    for seed in range(2000):
        mux = StochasticMux(constants(2), 2, 11, [9, 1], "exhaustive", random_state=seed, dist="binomial")
        counts = np.bincount(list(mux))
        heavy.append(counts[0]), light.append(counts[1])
    p = 10 / 12  # of 12 trials, the least whole number from 10 / 0.9 on
    assert np.var(heavy) == pytest.approx(10 * (1 - p), rel=0.2)  # a standard error is 0.03
    assert np.var(light) == pytest.approx(10 * 0.9, rel=0.2)
    assert np.mean(heavy) == pytest.approx(11, abs=5 * np.sqrt(10 * (1 - p) / 2000))
    assert np.mean(light) == pytest.approx(11, abs=5 * np.sqrt(9 / 2000))


@pytest.mark.parametrize("rate", [1, 1.25, 2.5, 1000.0])
@pytest.mark.parametrize("dist", ["poisson", "binomial"])
def test_a_rate_need_not_be_a_whole_number(rate, dist):
    n = 1000
    mux = StochasticMux(constants(n), 3, rate, mode="exhaustive", random_state=6, dist=dist)
    budgets = np.bincount(list(mux))
    assert budgets.min() >= 1
    assert budgets.mean() == pytest.approx(rate, abs=5 * np.sqrt(rate / n) if rate > 1 else 0)
