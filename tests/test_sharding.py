"""shard: what it refuses, says and takes. That ranks share one sequence is tested in laws/."""

from functools import partial
from itertools import islice

import numpy as np
import pytest

import pescador
from pescador import RNG, ChainMux, ParallelStreamer, RoundRobinMux, ShuffledMux, Streamer, shard

from .streams import Counting, failing, noise, numbers

NOISE = Streamer(noise, 10**9, RNG)
SEEDED = ShuffledMux([NOISE] * 3, random_state=0)
SEEDLESS = ShuffledMux([NOISE] * 3)


@pytest.mark.parametrize(("rank", "world"), [(3, 3), (-1, 2), (0, 0), (0.5, 2), (None, 2)])
def test_a_rank_that_cannot_be_is_refused(rank, world):
    with pytest.raises(pescador.PescadorError, match=r"rank|world"):
        shard(SEEDED, rank, world)


def test_an_unknown_way_is_refused():
    with pytest.raises(pescador.PescadorError, match="item, stream"):
        shard(SEEDED, 0, 2, by="file")


@pytest.mark.parametrize(
    "stream",
    [
        SEEDLESS,
        Streamer(SEEDLESS),
        Streamer(SEEDLESS.cycle),
        Streamer(pescador.tuples, SEEDLESS, "x"),
        Streamer(partial(pescador.buffer_stream, Streamer(map, str, SEEDLESS)), 3),
        Streamer(zip, [SEEDED, SEEDLESS]),
        ParallelStreamer(SEEDLESS, "serial", 2),
        ChainMux([SEEDED]),
        RoundRobinMux([SEEDED]),
        shard(SEEDLESS, 0, 1),
    ],
    ids=repr,
)
def test_a_mux_without_a_random_state_above_it_is_refused(stream):
    with pytest.raises(pescador.PescadorError, match="has no random_state, so each rank would"):
        shard(stream, 0, 2)
    shard(ChainMux([stream], random_state=0), 0, 2)
    shard(stream, 0, 1)


@pytest.mark.parametrize(
    "stream",
    [
        NOISE,
        ParallelStreamer(NOISE, "serial"),
        Streamer(pescador.cache, SEEDED, 3, random_state=RNG),
        Streamer(partial(noise, rng=RNG), 3),
        Streamer(partial(noise, 3, RNG)),
        Streamer(dict, [[RNG]], x=(1, RNG)),
        Streamer(dict, {"x": RNG}),
    ],
    ids=repr,
)
def test_a_generator_without_a_random_state_above_it_is_refused(stream):
    with pytest.raises(pescador.PescadorError, match=r"takes pescador.RNG.*ChainMux"):
        shard(stream, 0, 2)
    shard(ChainMux([stream], random_state=0), 0, 2)


def test_what_draws_nothing_needs_no_random_state():
    assert list(shard(range(7), 1, 3)) == [1, 4]
    assert list(shard(Streamer(numbers, 7), 0, 3)) == [0, 3]
    assert list(shard(iter(range(7)), 2, 3)) == [2, 5]
    assert not list(shard(range(2), 0, 3))


def test_a_generator_as_random_state_gives_each_opening_the_next_sequence():
    def parts(by):
        robin = RoundRobinMux([NOISE] * 4, random_state=np.random.default_rng(0))
        return [list(stream(10)) for stream in [shard(robin, 1, 2, by)] * 2]

    robin = RoundRobinMux([NOISE] * 4, random_state=np.random.default_rng(0))
    assert parts("item") == parts("stream") == [list(robin(20))[1::2] for _ in range(2)]


@pytest.mark.parametrize(
    "stream",
    [
        SEEDED,
        RoundRobinMux([NOISE] * 5, random_state=0),
        Streamer(RoundRobinMux([NOISE] * 4, random_state=0)),
        ParallelStreamer(RoundRobinMux([NOISE] * 4, random_state=0), "serial"),
    ],
    ids=repr,
)
def test_by_stream_takes_a_round_robin_of_a_multiple_alone(stream):
    with pytest.raises(pescador.PescadorError, match=r"a multiple of 2 of them.*by='item'"):
        shard(stream, 0, 2, by="stream")


@pytest.mark.parametrize("mode", ["exhaustive", "cycle", "permuted_cycle"])
@pytest.mark.parametrize("n", [0, 3])
def test_by_stream_an_end_is_an_error(mode, n):
    part = shard(RoundRobinMux([Streamer(numbers, n)] * 4, mode, 0), 1, 2, by="stream")
    items = iter(part)
    assert len(list(islice(items, 2 * n))) == 2 * n
    with pytest.raises(pescador.DataError, match=r"stream \d of .* has ended.*endless"):
        next(items)


def test_by_stream_only_the_streams_of_the_rank_run():
    sources = [Counting() for _ in range(6)]
    items = iter(shard(RoundRobinMux(sources, random_state=0), 1, 3, by="stream"))
    list(islice(items, 10))
    assert [source.taken for source in sources] == [0, 5, 0, 0, 5, 0]
    items.close()


def test_whole_rounds_are_taken_and_nothing_ahead():
    source = Counting()
    items = shard(Streamer(source), 0, 4).iterate(3)
    assert source.opened == 0
    taken = [source.taken for _ in items]
    assert taken == [4, 8, 12]
    assert (source.taken, source.running) == (12, 0)


def test_an_error_of_the_whole_is_that_of_each_rank():
    for rank in range(3):
        items = iter(shard(Streamer(failing, 4, OSError), rank, 3))
        assert next(items) == rank
        with pytest.raises(OSError, match="it is broken"):
            next(items)


def test_a_state_of_another_stream_is_refused():
    robin = RoundRobinMux([NOISE] * 4, random_state=0)
    for one, other in [
        (shard(robin, 0, 2), robin),
        (shard(robin, 0, 2), Streamer(robin)),
        (shard(robin, 0, 2), shard(robin, 0, 2, "stream")),
        (shard(robin, 0, 2), shard(SEEDED, 0, 2)),
        (shard(robin, 0, 2, "stream"), robin),
    ]:
        with pytest.raises(pescador.PescadorError, match="not of"):
            other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("backend", [None, "serial", "thread"])
@pytest.mark.parametrize("by", ["item", "stream"])
def test_an_origin_is_that_of_the_item_of_this_rank(by, backend):
    robin = RoundRobinMux([NOISE] * 4, random_state=0)
    for rank in range(4):
        part = shard(robin, rank, 4, by)
        items = (part if backend is None else ParallelStreamer(part, backend)).iterate()
        for item in islice(items, 3):
            origin = items.origin()
            assert pescador.replay(origin) == item
            assert origin.way[-1].index == rank
        assert origin.item == 2
        items.close()


def test_workers_of_what_is_shared_end_with_it():
    whole = ParallelStreamer(SEEDED, "thread")
    part = shard(whole, 1, 2)
    items = part.iterate(5)
    assert list(items) == list(shard(SEEDED, 1, 2)(5))
    part.close()
    assert whole.stats()["streams"] == 0
    shard(SEEDED, 1, 2).close()


def test_repr():
    assert repr(shard("abc", 0, 2)) == "shard(Streamer('abc'), 0, 2)"
    assert repr(shard(RoundRobinMux(["abc"] * 2, random_state=0), 1, 2, "stream")) == (
        "shard(<RoundRobinMux of 2 streamers>, 1, 2, by='stream')"
    )
