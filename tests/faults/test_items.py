"""Items and exceptions of the user that raise when they are pickled, loaded or shown, whatever they raise."""

import itertools
import pickle

import numpy as np
import pytest

from pescador import DataError, ParallelStreamer, Streamer, WorkerError
from pescador.backends.protocol.errors import describe_error, dump_error, load_error

from ..kinds import process_backends

RAISED = [
    TypeError,
    StopIteration,
    SystemExit,
    GeneratorExit,
    RuntimeError,
    RecursionError,
    MemoryError,
    EOFError,
    pickle.UnpicklingError,
    BaseException,
]

every_error = pytest.mark.parametrize("error", RAISED, ids=lambda error: error.__name__)


def fail(error):
    raise error("on purpose")


class Fails:
    """Is pickled, and raises when it is loaded."""

    def __init__(self, error, ballast=None):
        self.error = error
        self.ballast = ballast  # an array decides in which way the item travels

    def __reduce__(self):
        return fail, (self.error,), self.ballast


class Restores(Fails):
    """Raises when its state is set, and by then has its arrays."""

    def __reduce__(self):
        return Restores, (self.error,), (self.error, self.ballast)

    def __setstate__(self, state):
        raise state[0]("on purpose")


class Refuses(Fails):
    """Raises when it is pickled."""

    def __reduce__(self):
        fail(self.error)


class Message(Exception):
    """Raises when it is shown."""

    def __init__(self, error):
        super().__init__(error)
        self.error = error

    def __str__(self):
        fail(self.error)


PLACES = {
    "inline": lambda item: item,
    "nested": lambda item: {"x": np.zeros(3), "more": [1, (item,)]},
    "in a record": lambda item: {"x": np.zeros(40_000), "item": item},
}


def among_others(make, error, place):
    yield 0
    yield PLACES[place](make(error, np.zeros(3)))
    yield 2


@pytest.fixture(params=["shm", "zmq"])
def pool(request):
    """Give a function that runs streams on one pool."""
    with ParallelStreamer([], request.param) as first:

        def parallel(streamer):
            other = ParallelStreamer(streamer, request.param)
            other._pool = first._pool
            return other

        list(first)
        yield parallel


def test_an_item_that_does_not_load_is_a_data_error_that_names_its_stream(pool):
    for make, error, place in itertools.product([Fails, Restores], RAISED, PLACES):
        found = []
        items = pool(Streamer(among_others, make, error, place))
        with pytest.raises(DataError) as caught:
            found.extend(items)
        assert found == [0]
        assert "among_others" in str(caught.value)
        assert f"({__name__}.{'fail' if make is Fails else 'Restores'})" in str(caught.value)
        assert type(caught.value.__cause__) is error


def test_an_item_that_is_not_pickled_is_a_data_error(pool):
    for error in RAISED:
        items = iter(pool(Streamer(among_others, Refuses, error, "nested")))
        assert next(items) == 0
        with pytest.raises(DataError, match=r"cannot be sent.*Refuses.*(on purpose|recursion)"):
            next(items)


@process_backends
def test_other_streams_go_on_and_all_memory_comes_back(backend):
    """Though the errors are kept, with the frames in which they were raised."""
    options = {"ring_bytes": 1 << 20} if backend == "shm" else {}
    with ParallelStreamer(Streamer(range(1000)), backend, prefetch=1, **options) as stream:
        numbers = iter(stream)
        assert next(numbers) == 0
        pool = stream._pool
        errors = []
        for i in range(20):  # a third of the ring each
            failing = ParallelStreamer(
                Streamer(among_others, Restores, SystemExit, "in a record"), backend, **options
            )
            failing._pool = pool
            with pytest.raises(DataError) as caught:
                list(failing)
            errors.append(caught.value)
            assert next(numbers) == 1 + i
        (handle,) = pool._pool.workers
        handle._receiver.collect()
        assert getattr(handle._receiver, "_n_leased", 0) == 0
        assert len(handle.streams) == 1
        numbers.close()


@process_backends
def test_a_class_of_a_script_is_named(backend):
    class Local:
        def __setstate__(self, state):
            raise RuntimeError("on purpose")

        def __getstate__(self):
            return {"a": 1}

    def source():
        yield {"x": Local()}

    with (
        ParallelStreamer(Streamer(source), backend) as stream,
        pytest.raises(DataError, match=r"an item \(.*Local\) of .*source.* cannot be loaded"),
    ):
        list(stream)


@process_backends
@pytest.mark.parametrize("when", ["pickled", "loaded"])
def test_the_metadata_of_a_dtype_may_be_anything(backend, when):
    """Which is sent ahead of the items."""
    make = {"pickled": Refuses, "loaded": Fails}[when]

    def source():
        yield {"x": np.zeros(3)}
        yield {"x": np.zeros(3, np.dtype("f8", metadata={"unit": make(SystemExit)}))}

    with ParallelStreamer(Streamer(source), backend) as stream:
        for _ in range(2):
            items = iter(stream)
            next(items)
            with pytest.raises(DataError, match="on purpose") as caught:
                next(items)
            assert type(caught.value.__cause__) is SystemExit or when == "pickled"


@every_error
def test_an_exception_that_raises_when_it_is_shown_pickled_or_loaded_is_still_told(error):
    assert describe_error(Message(error)) == f"Message (its text raises {error.__name__})"
    for failing in (
        Message(error),
        type("Unpickled", (Exception,), {"__reduce__": lambda self: fail(error)})(),
    ):
        data, text = dump_error(failing)
        assert type(failing).__name__ in text
        assert isinstance(load_error((data, text), "a worker"), Message | WorkerError)
    loads = pickle.dumps(Fails(error))
    assert isinstance(load_error((loads, "text"), "a worker"), WorkerError)


def test_an_exception_of_a_stream_may_be_of_any_kind(pool):
    def source(error):
        yield 0
        raise Message(error)

    for error in RAISED:
        items = iter(pool(Streamer(source, error)))
        assert next(items) == 0
        with pytest.raises((Message, WorkerError)):
            next(items)
