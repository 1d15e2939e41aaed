import copy
import functools
import pickle
import threading
from collections.abc import Iterator

import pytest

from pescador import ChainMux, ParallelStreamer, PescadorError, ShuffledMux, Streamer

from ..kinds import every_backend
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


def three():
    return streamers(3)


GIVEN = {
    "generator function": lambda: three,
    "partial": lambda: functools.partial(streamers, 3),
    "Streamer": lambda: Streamer(streamers, 3),
    "Streamer of a Streamer": lambda: Streamer(Streamer(streamers, 5), max_iter=3),
    "generator": lambda: streamers(3),
    "iterator": lambda: iter(list(streamers(3))),
    "list": lambda: list(streamers(3)),
}
CHAIN = [0, 1, 10, 11, 20, 21]
given_as = pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)


@given_as
def test_streamers_may_be_given_in_many_ways_and_a_chain_of_them_be_opened_again(given):
    chain = ChainMux(given())
    assert [list(chain), list(chain(3)), list(chain)] == [CHAIN, CHAIN[:3], CHAIN]
    assert list(chain.cycle(9)) == CHAIN + CHAIN[:3]
    assert list(ChainMux(given(), "cycle")(9)) == CHAIN + CHAIN[:3]
    assert list(ChainMux([ChainMux(given()), [7]])) == [*CHAIN, 7]


@given_as
def test_two_iterations_of_a_chain_do_not_disturb_each_other(given):
    chain = ChainMux(given())
    first, second = iter(chain), iter(chain)
    assert [next(first), next(first), next(first)] == CHAIN[:3]
    assert list(second) == CHAIN
    assert list(first) == CHAIN[3:]


@given_as
@pytest.mark.parametrize("n_workers", [1, 2])
@every_backend
def test_every_chain_is_a_mux_that_runs_on_several_workers(given, backend, n_workers):
    chain = ChainMux(given())
    with ParallelStreamer(chain, backend, n_workers) as stream:
        if n_workers == 1 and backend in ("shm", "zmq") and isinstance(given(), Iterator):
            with pytest.raises(PescadorError, match=r"ChainMux\(Streamer\(parts, 4\)\), not"):
                list(stream)
        else:
            assert list(stream) == list(stream) == CHAIN


def test_a_generator_of_streamers_is_taken_once_by_many_threads():
    """Each takes the next streamer when the others are at it, too."""
    n_threads, n = 8, 200
    log, found, barrier = [], [], threading.Barrier(n_threads)

    def members():
        for i in range(n):
            log.append(i)
            yield [i]

    chain = ChainMux(members())

    def run():
        barrier.wait()
        found.append(list(chain))

    threads = [threading.Thread(target=run) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log == list(range(n))
    assert found == [log] * n_threads


@pytest.mark.parametrize("form", [lambda function: function(), Streamer, lambda function: function])
def test_streamers_of_a_generator_are_taken_one_at_a_time(form):
    log = []

    def logged():
        for i, streamer in enumerate(streamers(3)):
            log.append(i)
            yield streamer

    items = ChainMux(form(logged)).iterate()
    assert log == []
    taken = [(next(items), len(log)) for _ in range(4)]
    assert taken == [(0, 1), (1, 1), (10, 2), (11, 2)]
    items.close()
    assert len(log) == 2


def test_a_generator_of_streamers_that_raised_does_not_end_silently_later():
    def failing():
        yield "ab"
        raise OSError("gone")

    chain = ChainMux(failing())
    with pytest.raises(OSError, match="gone"):
        list(chain)
    with pytest.raises(PescadorError, match="raised OSError after 1 of them") as caught:
        list(chain)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(chain(2)) == ["a", "b"]


@pytest.mark.parametrize("ship", [pickle.dumps, copy.deepcopy])
def test_shipping_a_chain_of_a_generator_names_the_fix(ship):
    with pytest.raises(PescadorError, match=r"ChainMux\(Streamer\(parts, 4\)\), not ChainMux"):
        ship(ChainMux(streamers(3)))
    assert list(copy.copy(ChainMux(streamers(3)))) == CHAIN


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
