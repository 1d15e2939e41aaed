import pytest

from pescador import ChainMux, PescadorError, ShuffledMux, Streamer

from ..streams import Counting, letters, numbers


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("exhaustive", "aaaaaabbbccccceeee"),
        ("cycle", "aaaaaabbbccccceeeeaaaaaabbbccccc"),
    ],
)
def test_the_sequence_is_that_of_the_streams(mode, expected):
    assert "".join(ChainMux(letters(6, 3, 5, 0, 4), mode)(32)) == expected


@pytest.mark.parametrize("mode", ["unknown", None, "permuted_cycle"])
def test_an_unknown_mode_is_refused_by_name(mode):
    with pytest.raises(PescadorError, match=f"unknown mode {mode!r}.*exhaustive, cycle"):
        ChainMux(["a"], mode=mode)


def test_one_stream_is_open_at_a_time():
    sources = [Counting(3) for _ in range(4)]
    for _ in ChainMux(sources, "cycle")(30):
        assert sum(source.running for source in sources) == 1


def streamers(n):
    for i in range(n):
        yield Streamer(numbers, 2, start=10 * i)


@pytest.mark.parametrize("given", [lambda: Streamer(streamers, 3), lambda: streamers(3)])
def test_streamers_may_come_from_a_generator(given):
    assert list(ChainMux(given())) == [0, 1, 10, 11, 20, 21]


def test_a_generator_of_streamers_is_taken_one_at_a_time():
    log = []

    def logged():
        for i, streamer in enumerate(streamers(3)):
            log.append(i)
            yield streamer

    items = ChainMux(Streamer(logged)).iterate()
    assert log == []
    taken = [(next(items), len(log)) for _ in range(4)]
    assert taken == [(0, 1), (1, 1), (10, 2), (11, 2)]
    items.close()


def test_a_streamer_of_streamers_starts_again_and_a_generator_object_does_not():
    assert list(ChainMux(Streamer(streamers, 2), "cycle")(6)) == [0, 1, 10, 11, 0, 1]
    once = ChainMux(streamers(2), "cycle")
    assert [list(once), list(once)] == [[0, 1, 10, 11], []]


def test_a_generator_of_streamers_may_be_endless():
    def endless():
        while True:
            yield "ab"

    assert "".join(ChainMux(Streamer(endless))(7)) == "abababa"


def test_plain_iterables_from_a_generator_are_wrapped_and_others_refused_by_place():
    items = ChainMux(item for item in ["ab", 5]).iterate()
    assert [next(items), next(items)] == ["a", "b"]
    with pytest.raises(PescadorError, match=r"streamer 1 of a mux.*not 5"):
        next(items)


def test_a_chain_over_a_generator_does_not_know_its_length():
    chain = ChainMux(Streamer(streamers, 3))
    with pytest.raises(PescadorError, match="does not know how many"):
        chain.n_streams  # noqa: B018 -- a property
    assert repr(chain) == "<ChainMux of streamers>"


def test_a_cycle_without_a_sample_ends():
    assert "".join(ChainMux([iter("ab"), ""], "cycle")) == "ab"


def test_each_round_gives_a_stream_a_seed_of_its_own():
    mux = ChainMux([ShuffledMux(letters(1, 1), random_state=None)] * 2, "cycle", random_state=0)
    inner = Streamer(joined, mux.streamers[0], 20)
    rounds = list(ChainMux([inner, inner], "cycle", random_state=0)(6))
    assert len(set(rounds)) == 6
    assert rounds == list(ChainMux([inner, inner], "cycle", random_state=0)(6))


def joined(stream, n):
    yield "".join(stream.iterate(n))


def test_random_streamers_of_streamers_are_reproducible():
    chosen = Streamer(ShuffledMux([[["ab"]], [["cd"]], [["ef"]]]))
    chain = ChainMux(Streamer(first_entries, chosen, 10), random_state=0)
    assert "".join(chain) == "".join(chain)


def first_entries(stream, n):
    for entry in stream.iterate(n):
        yield entry[0]
