"""What saves making items again: sources that are told where to begin, and maps that hold nothing."""

import functools
import json
from itertools import islice

import numpy as np
import pytest

import pescador
from pescador import RNG, START, ChainMux, ParallelStreamer, PescadorError, Streamer, stateless, streamable

from .streams import noise, numbers


def state_after(stream, n):
    """Return the state of an iterator that gave n items and was closed, as it comes out of JSON."""
    items = iter(stream)
    assert len(list(islice(items, n))) == n
    state = json.loads(json.dumps(items.state_dict()))
    items.close()
    return state


def assert_goes_on(stream, n, length=30):
    """Check what comes after n items, and after some of those."""
    expected = list(islice(stream, length))
    stream.load_state_dict(state_after(stream, n))
    items = iter(stream)
    found = list(islice(items, 2))
    stream.load_state_dict(items.state_dict())
    found += islice(stream, length - n - 2)
    assert repr(found) == repr(expected[n:])


# START


def seek(n, start):
    """A source that tells with each item where it was told to begin."""
    if not isinstance(start, int):
        (start,) = start.values() if isinstance(start, dict) else start
    for i in range(start, n):
        yield i, start


SEEKING = {
    "argument": Streamer(seek, 9, START),
    "keyword": Streamer(seek, 9, start=START),
    "first argument": Streamer(lambda start, n: seek(n, start), START, 9),
    "in a list": Streamer(seek, 9, [START]),
    "in a tuple": Streamer(seek, 9, (START,)),
    "in a dict": Streamer(seek, 9, {"start": START}),
    "with a partial": Streamer(functools.partial(seek, 9), START),
    "in a partial": Streamer(functools.partial(seek, 9, start=START)),
    "decorated": streamable(seek)(9, START),
    "limited": Streamer(Streamer(seek, 9, START), 8),
    "in a mux": ChainMux([Streamer(seek, 9, START)]),
    "below a map": Streamer(map, tuple, Streamer(seek, 9, START)),
    "below a method": Streamer(Streamer(seek, 9, START).iterate),
    "with random numbers": Streamer(lambda n, start, rng: seek(n, start), 9, START, RNG),
}


@pytest.mark.parametrize("stream", SEEKING.values(), ids=SEEKING)
def test_a_source_is_told_how_many_items_it_has_given(stream):
    assert next(iter(stream)) == (0, 0)
    stream.load_state_dict(state_after(stream, 5))
    items = iter(stream)
    assert list(islice(items, 2)) == [(5, 5), (6, 5)]
    stream.load_state_dict(items.state_dict())
    assert next(iter(stream)) == (7, 7)


def test_each_epoch_is_told_anew():
    stream = Streamer(seek, 3, START)
    items = stream.cycle()
    list(islice(items, 5))
    stream.load_state_dict(items.state_dict())
    assert list(stream.cycle(9)) == [(2, 2), (0, 0), (1, 0), (2, 0)]


def test_a_source_that_has_given_all_is_told_so():
    stream = Streamer(seek, 3, START)
    stream.load_state_dict(state_after(stream, 3))
    assert list(stream) == []


def test_max_iter_counts_what_was_given_before():
    stream = Streamer(seek, 100, START)
    stream.load_state_dict(state_after(stream, 5))
    assert list(stream(7)) == [(5, 5), (6, 5)]


@pytest.mark.parametrize(("backend", "n_workers"), [("thread", 1), ("shm", 1), ("shm", 2), ("zmq", 2)])
def test_a_source_in_a_worker_is_told_too(backend, n_workers):
    mux = ChainMux([Streamer(seek, 9, START)])
    with ParallelStreamer(mux, backend, n_workers) as stream:
        stream.load_state_dict(state_after(mux, 5))
        assert next(iter(stream)) == (5, 5)


def test_messages_show_the_marker():
    assert repr(START) == "pescador.START"
    assert repr(Streamer(seek, 9, START)) == "Streamer(seek, 9, pescador.START)"


# stateless


def pairs(stream):
    items = iter(stream)
    yield from zip(items, items, strict=False)


@stateless
def marked(stream):
    yield from pairs(stream)


@streamable
@stateless
def marked_within(stream):
    yield from pairs(stream)


@stateless
@streamable
def marked_without(stream):
    yield from pairs(stream)


class Pairs:
    @stateless
    def __call__(self, stream):
        yield from pairs(stream)

    @stateless
    def method(self, stream):
        yield from pairs(stream)

    @staticmethod
    @stateless
    def static(stream):
        yield from pairs(stream)


def begins_at(make, n=20):
    """Return how many items a source had given when its map had given n, and which it makes first then."""
    made = []

    def source(start):
        for i in range(start, 10**6):
            made.append(i)
            yield i

    stream = make(Streamer(source, START))
    expected = list(islice(stream, n + 5))[n:]
    made.clear()
    state = state_after(stream, n)
    n_given = len(made)
    made.clear()
    stream.load_state_dict(state)
    assert list(islice(stream, 5)) == expected
    return n_given, made[0]


STATELESS = {
    "function": lambda stream: Streamer(marked, stream),
    "decorated after": lambda stream: marked_within(stream),
    "decorated before": lambda stream: marked_without(stream),
    "object": lambda stream: Streamer(Pairs(), stream),
    "method": lambda stream: Streamer(Pairs().method, stream),
    "static method": lambda stream: Streamer(Pairs.static, stream),
    "partial of a marked one": lambda stream: Streamer(functools.partial(marked), stream),
    "stream in the partial": lambda stream: Streamer(functools.partial(marked, stream)),
    "marked partial": lambda stream: Streamer(stateless(functools.partial(pairs)), stream),
    "in a list": lambda stream: Streamer(stateless(lambda streams: pairs(*streams)), [stream]),
    "map": lambda stream: Streamer(map, str, stream),
    "map of a partial": lambda stream: Streamer(functools.partial(map, str), stream),
    "filter": lambda stream: Streamer(filter, lambda i: i % 2, stream),
    "map of two": lambda stream: Streamer(map, lambda i, j: i, stream, Streamer(range(10**6))),
    "method of a stream": lambda stream: Streamer(stream.cycle, 10**6),
    "skip_errors": lambda stream: Streamer(pescador.skip_errors, stream, OSError),
    "nested": lambda stream: Streamer(marked, Streamer(map, str, Streamer(marked, stream))),
}
REPLAYED = {
    "unmarked": lambda stream: Streamer(pairs, stream),
    "map of what is no stream": lambda stream: Streamer(map, lambda i, j: i, stream, range(10**6)),
    "partial of an unmarked one": lambda stream: Streamer(functools.partial(pairs), stream),
}


@pytest.mark.parametrize("make", STATELESS.values(), ids=STATELESS)
def test_what_is_below_a_marked_map_is_not_made_again(make):
    n_given, begins = begins_at(make)
    assert begins == n_given >= 20


@pytest.mark.parametrize("make", REPLAYED.values(), ids=REPLAYED)
def test_what_is_below_any_other_is(make):
    assert begins_at(make)[1] == 0


def item(i):
    return {"x": np.full(2, i), "y": i}


MAPS = {
    "buffer_stream": (pescador.buffer_stream, 3),
    "buffer_stream, partial": (pescador.buffer_stream, 3, True),
    "tuples": (pescador.tuples, "x", "y"),
    "keras_tuples": (pescador.keras_tuples, "x", "y"),
    "cache": (pescador.cache, 3, 0.5, RNG),
}


@pytest.mark.parametrize(("function", "args"), [(f, args) for f, *args in MAPS.values()], ids=MAPS)
def test_maps_of_pescador_go_on_anywhere(function, args):
    stream = Streamer(function, Streamer(map, item, Streamer(range(20))), *args)
    stream = ChainMux([stream], random_state=0)
    length = len(list(stream))
    for n in range(length - 1):
        assert_goes_on(stream, n, length)


@stateless
def forever(stream):
    while True:
        yield from stream


@stateless
def batched_forever(stream):
    while True:
        yield from pescador.buffer_stream(stream, 4, partial=True)


@stateless
def if_needed(stream, other):
    """Takes from the other stream, which it opens at once, when it needs something."""
    others = iter(other)
    for i in stream:
        yield (i, next(others)) if i % 3 == 2 else i


@stateless
def limited(stream, other):
    for i in stream.iterate(10):
        yield i, next(iter(other))  # a new one for each item, which is closed at once


@pytest.mark.parametrize(
    "stream",
    [
        Streamer(forever, Streamer(noise, 5, RNG)),
        Streamer(batched_forever, Streamer(map, item, Streamer(noise, 6, RNG))),
        Streamer(if_needed, Streamer(numbers, 40), Streamer(noise, 40, RNG)),
        Streamer(limited, Streamer(noise, 40, RNG), Streamer(noise, 40, RNG)),
        Streamer(forever, Streamer(batched_forever, Streamer(map, item, Streamer(noise, 6, RNG)))),
    ],
)
def test_streams_among_the_arguments_go_on_where_they_stood(stream):
    for n in range(8):
        assert_goes_on(ChainMux([stream], random_state=0), n, 10)


@pytest.mark.parametrize("value", [zip, 7, Pairs().method])
def test_what_cannot_be_marked_is_refused(value):
    with pytest.raises(PescadorError, match=r"takes no mark\. Mark a method in its class"):
        stateless(value)
