import copy
import json
import pickle
from itertools import islice

import numpy as np
import pytest

from pescador import (
    RNG,
    START,
    BaseMux,
    ChainMux,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    StochasticMux,
    Streamer,
)

from ..streams import Counting, letters, noise, numbers


def stochastic(streamers, **options):
    return StochasticMux(streamers, 2, 4, **options)


ALL = [ShuffledMux, RoundRobinMux, ChainMux, stochastic]
WEIGHTED = [ShuffledMux, stochastic]
all_muxes = pytest.mark.parametrize("mux", ALL)
weighted_muxes = pytest.mark.parametrize("mux", WEIGHTED)


@all_muxes
def test_plain_iterables_are_wrapped_and_streamers_kept(mux):
    stream = Streamer(numbers, 3)
    streamers = mux([stream, range(3), "abc"]).streamers
    assert streamers[0] is stream
    assert all(isinstance(streamer, Streamer) for streamer in streamers)


@all_muxes
def test_any_collection_holds_streamers(mux):
    for collection in (("ab", "cd"), {"ab": 1, "cd": 2}, {"ab", "cd"}, np.array(["ab", "cd"])):
        assert mux(collection).n_streams == 2


@all_muxes
def test_no_streamers_raise(mux):
    with pytest.raises(PescadorError, match="at least one streamer, got none"):
        mux([])


@all_muxes
def test_what_is_no_collection_is_refused_by_type(mux):
    with pytest.raises(PescadorError, match="not a int"):
        mux(5)


@pytest.mark.parametrize("mux", [ShuffledMux, RoundRobinMux, stochastic])
def test_a_single_streamer_is_no_collection(mux):
    with pytest.raises(PescadorError, match="collection of streamers, not a Streamer"):
        mux(Streamer(range(3)))


@all_muxes
def test_a_streamer_that_cannot_be_one_is_refused_by_place_and_value(mux):
    with pytest.raises(PescadorError, match=r"streamer 1 of a mux.*not 5 of type int"):
        mux(["abc", 5])


@all_muxes
def test_a_mux_of_empty_streams_ends(mux):
    assert list(mux(["", [], Streamer(numbers, 0)])) == []
    assert list(mux(["", [], Streamer(numbers, 0)]).cycle()) == []


@all_muxes
def test_nothing_opens_before_the_first_item_and_all_is_closed_at_the_end(mux):
    sources = [Counting() for _ in range(3)]
    items = mux(sources).iterate()
    assert sum(source.opened for source in sources) == 0
    for _ in range(20):
        next(items)
    items.close()
    assert sum(source.running for source in sources) == 0
    assert sum(source.taken for source in sources) == 20


@all_muxes
def test_items_are_passed_on_as_they_are(mux):
    items = [object(), {"x": np.zeros(2)}, None, (1, [2]), StopIteration]
    assert all(any(got is item for item in items) for got in mux([items, items])(20))


@all_muxes
def test_a_mux_modifies_nothing_that_it_was_given(mux):
    streamers = [Streamer(numbers, 3), "abc"]
    before = streamers.copy(), streamers[0].__dict__.copy()
    made = mux(streamers)
    list(made(10))
    streamers.append("more")
    assert (streamers[:2], made.n_streams) == (before[0], 2)
    assert streamers[0].args == before[1]["args"]


@all_muxes
def test_a_mux_can_be_pickled_and_copied_while_it_runs(mux):
    made = mux(letters(3, 4), random_state=0)
    running = made.iterate()
    first = next(running)
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), copy.copy(made)):
        assert (twin.active, made.active) == (0, 1)
        assert "".join(twin(7)) == "".join(made(7))
    assert first + "".join(islice(running, 6)) == "".join(made(7))


@all_muxes
def test_an_error_of_one_stream_closes_the_others(mux):
    def fail():
        yield 0
        raise ValueError("broken")

    source = Counting(value=1)
    with pytest.raises(ValueError, match="broken"):
        list(mux([Streamer(fail), source], random_state=0))
    assert source.running == 0


@pytest.mark.parametrize("mux", [ShuffledMux, RoundRobinMux, lambda s, **k: StochasticMux(s, 2, None, **k)])
def test_streams_are_closed_even_if_one_fails_to_close(mux):
    def stubborn():
        try:
            while True:
                yield 0
        finally:
            raise OSError("cannot close")

    source = Counting(value=1)
    items = mux([Streamer(stubborn), source], random_state=0).iterate()
    for _ in range(10):
        next(items)
    with pytest.raises(OSError, match="cannot close"):
        items.close()
    assert source.running == 0


@all_muxes
def test_repr_says_how_many_streamers_there_are(mux):
    assert "2 streamers" in repr(mux(["a", "b"]))


# Weights


@weighted_muxes
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], r"\(1,\) for 2"),
        ([1, -1], r"-1"),
        ([1, np.nan], "nan"),
        ([0, 0], "all weights are 0"),
        ("ab", "number"),
    ],
)
def test_bad_weights_are_refused_at_construction(mux, weights, message):
    with pytest.raises(PescadorError, match=message):
        mux(["a", "b"], weights=weights)


@weighted_muxes
def test_the_weights_of_the_caller_are_neither_changed_nor_watched(mux):
    weights = np.array([1, 3])
    made = mux(["a", "b"], weights=weights)
    list(made(10))
    assert weights.tolist() == [1, 3]
    weights[:] = 0
    assert made.weights.tolist() == [1, 3]


@weighted_muxes
@pytest.mark.parametrize(
    "renew", [lambda m: m, copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_weights_are_read_only(mux, renew):
    made = renew(mux(["a", "b"], weights=[1, 3]))
    with pytest.raises(ValueError, match="read-only"):
        made.weights[0] = 5


@weighted_muxes
def test_a_copy_has_weights_of_its_own(mux):
    made = mux(["a", "b"], weights=[1, 3])
    for twin in (copy.copy(made), copy.deepcopy(made)):
        twin.weights = [5, 5]
    assert made.weights.tolist() == [1, 3]


@weighted_muxes
def test_streams_of_weight_zero_never_open(mux):
    sources = [Counting(), Counting(3), Counting()]
    list(mux(sources, weights=[0, 1, 0])(50))
    assert (sources[0].opened, sources[2].opened) == (0, 0)


@weighted_muxes
@pytest.mark.parametrize("weights", [[1, 2, 3], [1, -1], [np.nan, 1], [0, 0], ["a", "b"]])
def test_invalid_weights_while_running_raise_and_change_nothing(mux, weights):
    made, twin = (mux(letters(3, 4), weights=[1, 2], random_state=0) for _ in range(2))
    items = made.iterate(30)
    first = next(items)
    with pytest.raises(PescadorError, match="weight"):
        made.weights = weights
    assert made.weights.tolist() == [1, 2]
    assert first + "".join(items) == "".join(twin.iterate(30))


@weighted_muxes
def test_weights_set_before_it_runs_are_those_it_was_made_with(mux):
    changed, twin = mux(letters(3, 4), random_state=0), mux(letters(3, 4), weights=[1, 3], random_state=0)
    changed.weights = [1, 3]
    assert "".join(changed(40)) == "".join(twin(40))
    changed.weights = None
    assert "".join(changed(40)) == "".join(mux(letters(3, 4), random_state=0)(40))


# Muxes of one's own


class PairMux(BaseMux):
    """Two samples in a row from a random stream; each may be opened again and again."""

    def samples(self):
        rng = self.generator()
        for activation in range(20):
            stream = self.open_stream(rng.integers(self.n_streams), activation, max_iter=2)
            with self.closing([stream]):
                yield from stream


def test_a_mux_of_ones_own_needs_samples_alone():
    mux = PairMux([Counting(value="a"), Counting(value="b")], random_state=0)
    items = "".join(mux)
    assert items == "".join(mux)
    assert items[::2] == items[1::2]
    assert len(items) == 40
    assert "".join(ChainMux([mux], random_state=1)) == "".join(ChainMux([copy.deepcopy(mux)]))


def test_a_mux_without_samples_says_so():
    with pytest.raises(NotImplementedError, match=r"Unwritten does not define samples"):
        list(type("Unwritten", (BaseMux,), {})(["a"]))


def test_closing_closes_all_and_passes_over_what_has_no_close():
    sources = [Counting(), Counting()]
    streams = [iter(source) for source in sources]
    for stream in streams:
        next(stream)
    with BaseMux.closing([streams[0], None, iter(()), streams[1]]):
        pass
    assert [source.running for source in sources] == [0, 0]


def go_on(mux, n, length):
    """Return the items of a mux from the n-th on, of another one that goes on where it stood."""
    items = iter(mux)
    list(islice(items, n))
    state = json.loads(json.dumps(items.state_dict()))
    other = copy.deepcopy(mux)
    other.load_state_dict(state)
    return list(islice(other, length - n))


def test_a_mux_of_ones_own_goes_on_by_making_its_items_again():
    source = Counting()
    mux = PairMux([source, source], random_state=0)
    expected = list(mux)
    taken = source.taken
    assert go_on(mux, 30, 40) == expected[30:]
    assert source.taken - taken == 30 + 40


class Alternating(BaseMux):
    """One item of each stream in turn, until one ends; it says where it stands."""

    def samples(self):
        self._turn = self.resumed["turn"] if self.resumed else 0
        self._streams = [self.open_stream(i, np.int64(i)) for i in range(self.n_streams)]
        with self.closing(self._streams):
            while True:
                i = self._turn % self.n_streams
                self._turn += 1
                for item in islice(self._streams[i], 1):
                    yield item
                    break
                else:
                    return

    def state(self):
        streams = self.stream_states(((np.int64(i),), stream) for i, stream in enumerate(self._streams))
        return {"turn": self._turn, "streams": streams}


@pytest.mark.parametrize("parallel", [False, True])
def test_a_mux_of_ones_own_that_says_where_it_stands_goes_on_there(parallel):
    starts = []

    def source(start):
        starts.append(start)
        yield from range(start, 100)

    mux = Alternating([Streamer(source, START)] * 3)
    stream = ParallelStreamer(mux, "thread", 2) if parallel else mux
    assert go_on(stream, 31, 60) == [i // 3 for i in range(31, 60)]
    assert sorted(starts[-3:]) == [10, 10, 11]
    if parallel:
        stream.close()


def test_a_mux_that_draws_from_another_ones_samples_goes_on_with_that():
    class Doubled(StochasticMux):
        def samples(self):
            for item in super().samples():
                yield 2 * item

    mux = Doubled([Streamer(noise, 50, RNG) for _ in range(5)], 2, 4, random_state=0)
    assert go_on(mux, 31, 60) == list(mux(60))[31:]
