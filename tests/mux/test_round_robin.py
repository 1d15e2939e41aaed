from collections import Counter

import numpy as np
import pytest

from pescador import PescadorError, RoundRobinMux

from ..streams import Counting, letters


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("exhaustive", "abceabceabceaceaca"),
        ("cycle", "abceabceabceaceacaabceabceabceac"),
        ("permuted_cycle", "acbeacbeacbeaceacaecbaecbaecbaec"),
    ],
)
def test_the_sequence_of_a_seed_is_pinned(mode, expected):
    assert "".join(RoundRobinMux(letters(6, 3, 5, 0, 4), mode, random_state=0)(32)) == expected


@pytest.mark.parametrize("mode", ["unknown", None, "exhaust", 3])
def test_an_unknown_mode_is_refused_by_name(mode):
    with pytest.raises(PescadorError, match=f"unknown mode {mode!r}.*exhaustive, cycle, permuted_cycle"):
        RoundRobinMux(["a"], mode=mode)


def test_ended_streams_are_left_out_of_the_next_round():
    assert "".join(RoundRobinMux(["abcd", "x", "", "12"])) == "ax1b2cd"


def test_cycle_starts_all_streams_again_when_all_have_ended():
    sources = [Counting(2), Counting(1)]
    assert list(RoundRobinMux(sources, "cycle")(7)) == [0, 0, 1, 0, 0, 1, 0]
    assert [source.opened for source in sources] == [3, 2]


@pytest.mark.parametrize("mode", ["cycle", "permuted_cycle"])
def test_a_cycle_without_a_sample_ends(mode):
    assert list(RoundRobinMux([iter("ab"), iter("c"), ""], mode, random_state=0)) in (
        list("acb"),
        list("cab"),
    )


def test_each_cycle_is_a_permutation_of_its_own_and_keeps_it_to_its_end():
    mux = RoundRobinMux(letters(2, 2, 2, 2), "permuted_cycle", random_state=0)
    items = "".join(mux(8 * 24 * 20))
    cycles = [items[i : i + 8] for i in range(0, len(items), 8)]
    assert all(cycle[:4] == cycle[4:] for cycle in cycles)
    counts = Counter(cycle[:4] for cycle in cycles)
    assert len(counts) == 24
    assert max(counts.values()) < 20 + 7 * np.sqrt(20)


def test_a_stream_opens_at_its_first_turn():
    sources = [Counting(), Counting(), Counting()]
    items = RoundRobinMux(sources).iterate()
    for n_open in (1, 2, 3, 3):
        next(items)
        assert sum(source.opened for source in sources) == n_open
    items.close()
