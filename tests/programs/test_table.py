"""What programs that were written for versions 2 and 3 do, and what they get.

Each row is a habit seen in public programs or documentation, in a few lines, and what comes out of it.
"""

import itertools
import warnings

import numpy as np
import pytest

import pescador
import pescador.core
import pescador.maps
import pescador.mux
import pescador.zmq_stream

ROWS = {}


def row(words, expected):
    """Enter a program, and what it returns, into the table."""

    def enter(program):
        assert words not in ROWS
        ROWS[words] = program, expected
        return program

    return enter


@pytest.mark.parametrize(("program", "expected"), ROWS.values(), ids=ROWS)
def test_a_program_gets_what_it_expects(program, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Mux
        assert program() == expected


def rows_of(n, start=0):
    for i in range(start, start + n):
        yield {"X": np.full(2, i), "Y": i}


def pages(n):
    yield from range(n)


def letter(c):
    while True:
        yield c


def files(k=3, n=4):
    return [pescador.Streamer(rows_of, n, 10 * i) for i in range(k)]


def values(stream):
    return [item["Y"] for item in stream]


# Streams


@row("a Streamer is called, iterated over and cycled", [[0, 1, 2], [0, 1], [0, 1, 2, 0], [0, 1, 2, 0]])
def _():
    s = pescador.Streamer(pages, 3)
    return [list(s), list(s(max_iter=2)), list(s(max_iter=4, cycle=True)), list(s.cycle(max_iter=4))]


@row("max_iter is a float, as in 1e2", 100)
def _():
    return sum(1 for _ in pescador.Streamer(letter, "a")(max_iter=1e2))


@row("max_iter is infinite", [0, 1, 2])
def _():
    return list(pescador.Streamer(pages, 3).iterate(max_iter=np.inf))


@row("a Streamer of a Streamer limits it", [0, 1, 0, 1])
def _():
    s = pescador.Streamer(pages, 50)
    return list(pescador.ChainMux([pescador.Streamer(s, max_iter=2)] * 2))


@row("a Streamer of a mux's cycle", [0, 1, 0, 1, 0])
def _():
    chain = pescador.ChainMux([pescador.Streamer(pages, 2)])
    return list(pescador.Streamer(chain.cycle)(max_iter=5))


@row("a with block, and what is active in it", [0, True, False, 1, 0])
def _():
    s = pescador.core.Streamer(pages, 3)
    with s as active:
        found = [next(active.stream_), active.is_activated_copy, s.is_activated_copy, s.active]
    return [*found, s.active]


@row("streams side by side", [(0, 0), (1, 1)])
def _():
    s = pescador.Streamer(pages, 2)
    return list(zip(s, s, strict=True))


@row("islice over a stream", [0, 1])
def _():
    return list(itertools.islice(pescador.Streamer(pages, 9), 2))


@row("a generator that catches everything, in a mux that replaces it", 30)
def _():
    def robust(k):
        while True:
            try:
                yield k
            except:  # noqa: E722 -- seen in public programs
                continue

    mux = pescador.StochasticMux([pescador.Streamer(robust, k) for k in range(3)], 2, rate=2)
    with pytest.warns(RuntimeWarning, match="robust ignores its end"):
        return len(list(mux(max_iter=30)))


# Muxes


@row("three streams, always active", [{"a", "b", "c"}] * 10)
def _():
    def run(seed):
        streams = [pescador.Streamer(letter, c) for c in "abc"]
        return set(pescador.Mux(streams, k=len(streams), rate=None, random_state=seed)(max_iter=100))

    return [run(seed) for seed in range(10)]


@row("two streams, of which one is a map of the other, always active", {0.0, 0.5})
def _():
    def noisy(stream):
        for x in stream:
            yield x + 0.5

    stream = pescador.Streamer(letter, 0.0)
    mux = pescador.StochasticMux([stream, pescador.Streamer(noisy, stream)], n_active=2, rate=None)
    return set(mux(max_iter=100))


@row("an epoch with more active streams than there are", [[0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]] * 2)
def _():
    mux = pescador.StochasticMux(files(), 100, rate=None, mode="exhaustive")
    epochs = mux(cycle=True)
    return [sorted(values(itertools.islice(epochs, 12))) for _ in range(2)]


@row("single_active, with more active streams than there are", {0, 10, 20})
def _():
    mux = pescador.StochasticMux(files(n=1), 8, rate=2, mode="single_active")
    return set(values(mux(max_iter=100)))


@row("weights that do not add up to 1", True)
def _():
    streams = [pescador.Streamer(letter, c) for c in "ab"]
    weights = np.array([3, 1])
    found = "".join(pescador.ShuffledMux(streams, weights=weights, random_state=0)(max_iter=1000))
    return weights.tolist() == [3, 1] and 650 < found.count("a") < 850


@row("a RandomState", True)
def _():
    def run():
        rng = np.random.RandomState(7)
        return values(pescador.StochasticMux(files(), 2, 3, random_state=rng)(max_iter=20))

    return run() == run()


@row("a seed for NumPy before each epoch", True)
def _():
    mux = pescador.StochasticMux(files(), 2, 3)

    def run(epoch):
        np.random.seed(epoch)  # noqa: NPY002 -- what these programs do
        return values(mux(max_iter=20))

    return run(0) == run(0) != run(1)


@row("Mux without replacement, revived", {0, 1, 10, 11})
def _():
    mux = pescador.Mux(files(2, 2), 1, rate=3, with_replacement=False, revive=True)
    return set(values(mux(max_iter=50)))


@row("a chain of a generator function", [0, 1, 10, 11] * 2)
def _():
    def parts():
        yield from files(2, 2)

    chain = pescador.ChainMux(parts)
    return values(chain) + values(chain.iterate())


@row("a chain of a generator, cycled", [0, 1, 10, 11, 0, 1])
def _():
    return values(pescador.ChainMux((s for s in files(2, 2)), mode="cycle")(max_iter=6))


@row("round robin, in cycles", [0, 10, 1, 11, 0, 10])
def _():
    return values(pescador.RoundRobinMux(files(2, 2), mode="cycle")(max_iter=6))


@row("names of the modules that have them", True)
def _():
    from pescador.maps import buffer_stream, cache, keras_tuples, tuples
    from pescador.mux import BaseMux, ChainMux, Mux, RoundRobinMux, ShuffledMux, StochasticMux
    from pescador.zmq_stream import ZMQStreamer

    names = [BaseMux, ChainMux, Mux, RoundRobinMux, ShuffledMux, StochasticMux, ZMQStreamer]
    names += [buffer_stream, cache, keras_tuples, tuples]
    return all(getattr(pescador, name.__name__) is name for name in names)


# Maps


@row("batches, as a generator and as a Streamer", [[[0, 1], [2, 3]]] * 3)
def _():
    stream = pescador.Streamer(rows_of, 5)
    batches = pescador.Streamer(pescador.maps.buffer_stream, stream, 2)
    found = [pescador.buffer_stream(stream, 2), batches, batches()]
    return [[batch["Y"].tolist() for batch in each] for each in found]


@row("a batch size that was computed", [[0, 1], [2, 3]])
def _():
    return [b["Y"].tolist() for b in pescador.buffer_stream(rows_of(4), 8 / 4)]


@row("what Keras takes", [((2, 2), [0, 1]), ((2, 2), [2, 3])])
def _():
    batches = pescador.buffer_stream(pescador.Streamer(rows_of, 4), 2)
    return [(x.shape, y.tolist()) for x, y in pescador.maps.keras_tuples(batches, inputs="X", outputs="Y")]


@row("what Keras takes, several of each", [((0, 0), (0,))])
def _():
    return list(pescador.keras_tuples(({"X": i, "Y": i} for i in range(1)), ["X", "Y"], ["Y"]))


@row("a key that is not there, caught as a KeyError", "caught")
def _():
    try:
        return list(pescador.tuples([{"x": 1}], "y"))
    except KeyError:
        return "caught"


@row("items that are no dicts, caught as a ValueError", "caught")
def _():
    try:
        return list(pescador.buffer_stream("text", 2))
    except ValueError:
        return "caught"


@row("cache without caching", list(range(32)))
def _():
    return list(pescador.cache(range(32), 4, prob=1))


@row("cache: first in order, then so many new ones", [list(range(16)), True])
def _():
    found = list(pescador.maps.cache(range(4000), 16, 0.1, random_state=0))
    return [found[:16], 0.08 < 4000 / len(found) < 0.12]


# In the background


@row("a ZMQStreamer, with and without a limit, and cycled", [[0, 1, 2], [0, 1], [0, 1, 2, 0]])
def _():
    with pescador.ZMQStreamer(pescador.Streamer(pages, 3)) as z:
        return [list(z), list(z(max_iter=2)), list(z.cycle(max_iter=4))]


@row("a ZMQStreamer that waits without a bound", [0, 1, 2])
def _():
    with pescador.zmq_stream.ZMQStreamer(pescador.Streamer(pages, 3), timeout=None) as z:
        return list(z)


@row("a ZMQStreamer over a limited mux of batches", [[0, 1], [10, 11]])
def _():
    mux = pescador.RoundRobinMux([pescador.Streamer(pescador.buffer_stream, s, 2) for s in files(2)])
    with pescador.ZMQStreamer(pescador.Streamer(mux, max_iter=2), min_port=50_000, start_method="fork") as z:
        return [batch["Y"].tolist() for batch in z]


@row("a ZMQStreamer below a mux", {0, 1, 100})
def _():
    with pescador.ZMQStreamer(pescador.Streamer(pages, 2)) as z:
        return set(pescador.ShuffledMux([z, [100]])(max_iter=50))
