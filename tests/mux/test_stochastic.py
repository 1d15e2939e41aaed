"""StochasticMux. Of its statistical tests, see test_stochastic_statistics.py."""

import math

import numpy as np
import pytest

from pescador import ParallelStreamer, PescadorError, StochasticMux, Streamer

from ..streams import Counting, constant, letters

MODES = ["with_replacement", "single_active", "exhaustive"]
all_modes = pytest.mark.parametrize("mode", MODES)

WEIGHTS = [2, 1, 0, 2, 3]
PINNED = [
    ("with_replacement", False, None, "poisson", "ceceececcbbcbccccecceececcceeecc"),
    ("with_replacement", False, 2.5, "poisson", "cececbccbceeccccceceeeeeaaaaaaaa"),
    ("with_replacement", False, 2, "constant", "cecebcbceeccceceeaeaaaaaaabbcbce"),
    ("with_replacement", False, 2.5, "binomial", "ceeebcbbceeeccceeeeeaaaaaaaaaaaa"),
    ("with_replacement", True, None, "poisson", "eeeeeeeeaeeaeeaaaaeeeeeeeeeeeeee"),
    ("with_replacement", True, 2.5, "poisson", "eeeeaeaeeeeeeeeeeeeeaaeaaaaeeaaa"),
    ("with_replacement", True, 2, "constant", "eeeeaaeeeeeeeeeaaeeeaaaaaaebbeee"),
    ("with_replacement", True, 2.5, "binomial", "eeeeeeaeaeeaeeeeeeeeeaaeeeeaaaaa"),
    ("single_active", False, None, "poisson", "bbccbcceeceeeccccecaeeabbaaaacbc"),
    ("single_active", False, 2.5, "poisson", "bbccbeccececceeeceecaabbbbbcccae"),
    ("single_active", False, 2, "constant", "bbccececeebaacbceaeabcceebcceaeb"),
    ("single_active", False, 2.5, "binomial", "bcceceecececbbabcaaebbaaaeeaebbc"),
    ("single_active", True, None, "poisson", "aeaeeaeaaaaeeaeeeaeeeaaabeeeeeee"),
    ("single_active", True, 2.5, "poisson", "aeaeaeaaeaeeaeeeeebbeeeeeeeaeaaa"),
    ("single_active", True, 2, "constant", "aeaeeaeaeeeaeaeebbeeeeeeaabeebaa"),
    ("single_active", True, 2.5, "binomial", "aeaeeaeeeaeaeeeebbeeeeeeaabaebeb"),
    ("exhaustive", False, None, "poisson", "bcbccbccaaaeaaeeea"),
    ("exhaustive", False, 2.5, "poisson", "bcbcbaeeaee"),
    ("exhaustive", False, 2, "constant", "bcbcaeae"),
    ("exhaustive", False, 2.5, "binomial", "bcccaeaae"),
    ("exhaustive", True, None, "poisson", "bbaaaabaeaeee"),
    ("exhaustive", True, 2.5, "poisson", "bbaaaabee"),
    ("exhaustive", True, 2, "constant", "bbaaee"),
    ("exhaustive", True, 2.5, "binomial", "bbaaaee"),
]


@pytest.mark.parametrize(("mode", "weighted", "rate", "dist", "expected"), PINNED)
def test_the_sequence_of_a_seed_is_pinned(mode, weighted, rate, dist, expected):
    weights = WEIGHTS if weighted else None
    mux = StochasticMux(letters(6, 3, 5, 0, 4), 2, rate, weights, mode, random_state=0, dist=dist)
    assert "".join(mux(32)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_active": 0}, "n_active.*got 0"),
        ({"n_active": -1}, "n_active.*got -1"),
        ({"n_active": 1.5}, "n_active.*got 1.5"),
        ({"n_active": "x"}, "n_active.*got 'x'"),
        ({"n_active": None}, "n_active.*got None"),
        ({"n_active": True}, "n_active.*got True"),
        ({"rate": 0}, "rate.*got 0"),
        ({"rate": 0.5}, "rate.*got 0.5"),
        ({"rate": -3}, "rate.*got -3"),
        ({"rate": math.nan}, "rate.*got nan"),
        ({"rate": math.inf}, "rate.*got inf"),
        ({"rate": "x"}, "rate.*got 'x'"),
        ({"rate": 2.5, "dist": "constant"}, "whole number.*got 2.5"),
        ({"dist": "uniform"}, "unknown dist 'uniform'.*poisson, constant, binomial"),
        ({"mode": "unknown"}, "unknown mode 'unknown'.*with_replacement, single_active, exhaustive"),
        ({"mode": None}, "unknown mode None"),
        ({"weights": [1, 2]}, r"\(2,\) for 3"),
        ({"weights": [0, 0, 0]}, "all weights are 0"),
        ({"weights": [1, -1, 1]}, r"weights\[1\] is -1"),
        ({"weights": [1, 1, math.nan]}, r"weights\[2\] is nan"),
    ],
)
def test_a_bad_parameter_is_refused_by_value(options, message):
    with pytest.raises(PescadorError, match=message):
        StochasticMux(letters(1, 1, 1), **{"n_active": 2, "rate": 4, **options})


def test_more_slots_than_streamers_are_fine_where_they_may_repeat():
    mux = StochasticMux(letters(3), 4, None, random_state=0)
    assert "".join(mux(30)) == "a" * 30


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("weights", [None, [1, 2, 3]])
@pytest.mark.parametrize("dist", ["poisson", "binomial"])
@pytest.mark.parametrize("rate", [None, 3])
def test_where_streams_do_not_repeat_n_active_is_an_upper_bound(mode, weights, dist, rate):
    def run(n_active):
        sources = [Counting(9, value=letter) for letter in "abc"]
        mux = StochasticMux(sources, n_active, rate, weights, mode, random_state=0, dist=dist)
        items, n_open = [], []
        for item in mux(100):
            items.append(item)
            n_open.append(sum(source.running for source in sources))
        assert max(n_open) == 3
        return items

    assert run(100) == run(1e2) == run(3)


# The working set


def first_working_set(mux):
    """Return the indices of the streams that are active first."""
    with mux as active:
        next(active.stream_)
        return [assigned[1] for assigned in active._assigned]


@pytest.mark.parametrize(
    "weights",
    [None, [1.0] * 7, np.arange(7.0), 2.0 ** np.arange(7), [0, 1, 0, 50, 0, 1, 1], [0.1] * 7, [5e-324] * 7],
)
@pytest.mark.parametrize("n_active", [1, 3, 7, 20, 700])
def test_in_the_first_working_set_each_is_as_often_as_its_share_says(weights, n_active):
    shares = np.ones(7) if weights is None else np.array(weights) / np.max(weights)
    expected = n_active * shares / shares.sum()
    for seed in range(30):
        mux = StochasticMux([[i] for i in range(7)], n_active, 3, weights, random_state=seed)
        counts = np.bincount(first_working_set(mux), minlength=7)
        assert counts.sum() == n_active
        assert (np.floor(expected - 1e-9) <= counts).all()
        assert (counts <= np.ceil(expected + 1e-9)).all()


@pytest.mark.parametrize("backend", ["serial", "thread"])
def test_with_as_many_active_as_there_are_and_no_rate_each_is_active_for_good(backend):
    for seed in range(20):
        streams = [Streamer(constant, i) for i in range(3)]
        with ParallelStreamer(StochasticMux(streams, 3, None, random_state=seed), backend, 2) as mux:
            assert set(mux(100)) == {0, 1, 2}


@all_modes
@pytest.mark.parametrize("weights", [None, np.arange(12) + 1])
@pytest.mark.parametrize("rate", [1, 3, None])
def test_at_most_n_active_streams_are_open(mode, weights, rate):
    sources = [Counting(i) for i in range(12)]
    n_open = []
    for _ in StochasticMux(sources, 4, rate, weights, mode, random_state=0)(300):
        n_open.append(sum(source.running for source in sources))
        if mode != "with_replacement":
            assert max(source.running for source in sources) == 1
    assert max(n_open) <= 4
    assert max(n_open) == 4 or mode == "exhaustive"
    assert sum(source.running for source in sources) == 0


@pytest.mark.parametrize("weights", [None, 10.0 ** np.arange(-10, 10)])
@pytest.mark.parametrize("rate", [3, None])
@pytest.mark.parametrize("n_active", [1, 7, 20])
def test_exhaustive_opens_each_stream_once_an_epoch(weights, rate, n_active):
    sources = [Counting(5) for _ in range(20)]
    mux = StochasticMux(sources, n_active, rate, weights, "exhaustive", random_state=0)
    for epoch in range(1, 4):
        n = len(list(mux))
        assert [source.opened for source in sources] == [epoch] * 20
        assert n == 100 or rate


@all_modes
def test_without_a_rate_each_stream_runs_to_its_end(mode):
    sources = [Counting(7) for _ in range(3)]
    for _ in StochasticMux(sources, 2, None, mode=mode, random_state=0)(2000):
        assert sum(source.taken - 7 * source.closed for source in sources) <= 14
    if mode == "exhaustive":
        assert [source.taken for source in sources] == [7] * 3


@pytest.mark.parametrize("dist", ["poisson", "constant", "binomial"])
def test_rate_1_takes_one_item_of_each_activation(dist):
    sources = [Counting(9) for _ in range(10)]
    assert len(list(StochasticMux(sources, 3, 1, mode="exhaustive", dist=dist))) == 10
    assert [source.taken for source in sources] == [1] * 10


# Empty streams


@all_modes
@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("weights", [None, [1.0] * 10])
@pytest.mark.parametrize("n_active", [1, 3])
def test_streams_that_yield_are_found_among_empty_ones(mode, prune, weights, n_active):
    for seed in range(20):
        streams = letters(0, 0, 0, 0, 0, 0, 0, 3, 0, 2)
        mux = StochasticMux(streams, n_active, None, weights, mode, prune, random_state=seed)
        items = "".join(mux(60))
        assert set(items) == {"h", "j"}
        assert len(items) == (5 if mode == "exhaustive" else 60)


@pytest.mark.parametrize("mode", MODES[:2])
def test_pruned_streams_are_opened_once_and_others_again(mode):
    pruned, kept = ([Counting(0), Counting(0), Counting(2), Counting(2)] for _ in range(2))
    list(StochasticMux(pruned, 2, None, mode=mode, random_state=0)(200))
    list(StochasticMux(kept, 2, None, mode=mode, prune_empty_streams=False, random_state=0)(200))
    assert [source.opened for source in pruned[:2]] == [1, 1]
    assert min(source.opened for source in kept) > 5


@all_modes
@pytest.mark.parametrize("prune", [True, False])
def test_it_ends_when_all_streams_turn_out_empty(mode, prune):
    for weights in (None, [1, 2, 0, 3]):
        once = [iter("ab"), iter("c"), "", iter("d")]
        mux = StochasticMux(once, 2, None, weights, mode, prune, random_state=0)
        assert sorted(mux) == list("abcd")


# Changed weights


@all_modes
@pytest.mark.parametrize("before", [None, [3, 1, 1]])
def test_changed_weights_hold_from_the_next_activation_on(mode, before):
    sources = [Counting(value=letter) for letter in "abc"]
    mux = StochasticMux(sources, 1, 5, before, mode, random_state=0, dist="constant")
    items = mux.iterate()
    first = next(items)
    other = "b" if first == "c" else "c"
    mux.weights = [letter == other for letter in "abc"]
    assert "".join(next(items) for _ in range(4)) == first * 4
    assert "".join(next(items) for _ in range(5)) == other * 5
    if mode == "exhaustive":
        assert list(items) == []
    else:
        assert "".join(next(items) for _ in range(20)) == other * 20


@all_modes
def test_a_stream_that_is_given_a_weight_later_is_opened(mode):
    mux = StochasticMux(letters(5, 5), 1, None, [1, 0], mode, random_state=0)
    items = mux.iterate(40)
    next(items)
    mux.weights = [1e-12, 1]
    assert "".join(items)[:9] == "aaaabbbbb"


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("after", [None, [1, 0, 2]])
def test_active_streams_are_drawn_as_before_the_weights_were_changed(mode, after):
    def run(weights):
        mux = StochasticMux(
            [Streamer(constant, i) for i in range(3)], 3, None, [1, 2, 3], mode, random_state=0
        )
        items = mux.iterate(200)
        first = next(items)
        mux.weights = weights
        return [first, *items]

    assert run(after) == run([1, 2, 3])


def test_changed_weights_leave_pruned_streams_out():
    empty = Counting(0)
    mux = StochasticMux([empty, "b", "c"], 1, None, [100, 1, 1], random_state=0)
    items = mux.iterate(200)
    for _ in range(100):
        next(items)
    mux.weights = [100, 1, 0]
    assert set(list(items)[1:]) == {"b"}
    assert empty.opened == 1


# What it depends on


@all_modes
@pytest.mark.parametrize("weights", [None, [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("dist", ["poisson", "binomial"])
def test_the_size_of_the_blocks_does_not_change_the_sequence(monkeypatch, mode, weights, dist):
    mux = StochasticMux(letters(9, 0, 5, 7, 3, 1), 3, 4, weights, mode, random_state=0, dist=dist)
    expected = "".join(mux(300))
    for size in (1, 3, 1000):
        monkeypatch.setattr("pescador.sampling.FIRST_BLOCK", size)
        monkeypatch.setattr("pescador.sampling.LAST_BLOCK", size)
        assert "".join(mux(300)) == expected


@pytest.mark.parametrize("mode", MODES)
def test_what_opens_does_not_depend_on_how_long_streams_are(mode):
    def opened(n):
        log = []

        def logging(i):
            log.append(i)
            yield from [i] * n

        mux = StochasticMux([Streamer(logging, i) for i in range(50)], 1, None, mode=mode, random_state=0)
        list(mux(50 * n))
        return log

    assert opened(1) == opened(3)


@pytest.mark.parametrize("dist", ["poisson", "constant", "binomial"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "weights", [[1, 1e-300, 1e-12], [5e-324] * 3, [1e308, 1e308, 5e-324], [1e-12, 1, 1e12]]
)
def test_extreme_weights_work(mode, dist, weights):
    mux = StochasticMux(
        [Streamer(constant, i) for i in range(3)], 3, 4, weights, mode, random_state=0, dist=dist
    )
    items = list(mux(100))
    assert len(items) == 100 or mode == "exhaustive"
    assert all(items.count(i) for i in range(3)) or mode != "exhaustive"
