"""ParallelStreamer and ZMQStreamer, as far as it does not matter which backend they use."""

import copy
import inspect
import os
import pickle
import threading

import numpy as np
import pytest

from pescador import (
    RNG,
    DataError,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    ShuffledMux,
    Streamer,
    ZMQStreamer,
    buffer_stream,
)
from pescador.backends.consumer.segments import Segment
from pescador.testing import assert_same

from .kinds import every_backend, every_background, process_backends, worker_pid
from .streams import noise, numbers, samples

LARGE = 50_000  # values of an array that no backend sends inside a message


def arrays(n, size=LARGE):
    for i in range(n):
        yield {"i": i, "x": np.full(size, i, np.float64)}


# Parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_workers": 0}, "n_workers must be a whole number from 1 on, got 0"),
        ({"n_workers": -1}, "n_workers must be"),
        ({"n_workers": 1.5}, "n_workers must be"),
        ({"n_workers": True}, "n_workers must be"),
        ({"n_workers": 2}, r"single generator cannot be split.*RoundRobinMux\(\[stream\] \* n\)"),
        ({"prefetch": 0}, "prefetch must be None or a whole number from 1 on, got 0"),
        ({"prefetch": 2.5}, "prefetch must be"),
        ({"timeout": -1}, "timeout is None or seconds.*got -1"),
        ({"timeout": float("nan")}, "timeout is None or seconds"),
        ({"timeout": "5"}, "timeout is None or seconds.*got '5'"),
        ({"num_workers": 2}, "no option 'num_workers'; did you mean n_workers"),
        ({"workers": 2}, "no option 'workers'; did you mean n_workers"),
        ({"n_worker": 2}, "did you mean n_workers"),
        ({"pre_fetch": 2}, "did you mean prefetch"),
        ({"start_methods": "fork"}, "did you mean start_method"),
        ({"stall_time": 1}, "did you mean stall_timeout"),
        ({"ringbytes": 10**6}, "did you mean ring_bytes"),
        ({"xyz": 1}, "no option 'xyz'$"),
        ({"backend": "zmq", "max_trys": 1}, "options of backend 'zmq': .*did you mean max_tries"),
        ({"backend": "thread", "num_workers": 2}, "did you mean n_workers"),
        ({"open_ahead": -1}, "open_ahead must be None or a whole number from 0 on, got -1"),
        ({"open_ahead": 1.5}, "open_ahead must be"),
        ({"backend": "shmm"}, "unknown backend 'shmm'"),
        ({"backend": None}, "unknown backend None"),
        ({"backend": "shm", "ring_byte": 1}, "options of backend 'shm':.*ring_byte"),
        ({"backend": "thread", "start_method": "fork"}, "options of backend 'thread':.*start_method"),
        ({"start_method": "frok"}, "unknown start_method 'frok'.*forkserver, spawn, fork"),
        ({"ring_bytes": 100}, "ring_bytes must be None or a whole number from 4096 on, got 100"),
        ({"ring_bytes": "1G"}, "ring_bytes must be"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused_when_the_stream_is_made(options, message):
    with pytest.raises(PescadorError, match=message) as caught:
        ParallelStreamer(Streamer(numbers, 3), **options)
    assert isinstance(caught.value, ValueError)


def test_what_is_no_stream_is_refused():
    with pytest.raises(PescadorError):
        ParallelStreamer(3)


def test_an_iterable_is_wrapped():
    with ParallelStreamer([1, 2, 3], "thread") as stream:
        assert list(stream) == [1, 2, 3]


@process_backends
def test_an_open_iterator_is_refused_with_the_fix(backend):
    stream = ParallelStreamer(Streamer(numbers(3)), backend)
    with stream, pytest.raises(PescadorError, match=r"Streamer\(buffer_stream, stream, 16\)"):
        list(stream)


@process_backends
def test_a_recipe_that_cannot_be_pickled_is_refused_with_the_reason(backend, tmp_path):
    message = r"cannot be sent to a worker process.*backend='thread'"
    with (tmp_path / "file").open("w") as file:
        stream = ParallelStreamer(Streamer(noise, 3, file), backend)
        with stream, pytest.raises(PescadorError, match=message):
            list(stream)


def lock_in_itself():
    item = {"lock": threading.Lock()}
    item["self"] = item
    return item


def nested(item, levels=100_000):
    for _ in range(levels):
        item = [item]
    return item


UNSENDABLE = {
    "lock": threading.Lock,
    "lock in itself": lock_in_itself,
    "deep": lambda: nested(0),
    "deep lock": lambda: nested(threading.Lock()),
    "deep lock in a dict": lambda: {"x": np.zeros(3), "y": nested(threading.Lock())},
}


@pytest.mark.parametrize("make", UNSENDABLE.values(), ids=UNSENDABLE)
@process_backends
def test_an_item_that_cannot_be_sent_is_a_data_error_whatever_it_refers_to(backend, make):
    def items():
        yield {"n": 0}
        yield make()

    found = []
    with ParallelStreamer(Streamer(items), backend) as stream:
        with pytest.raises(DataError, match=r"an item cannot be sent to the consumer: (dict|list|lock|{)"):
            found.extend(stream)
        assert found == [{"n": 0}]


def test_the_signature_of_zmq_streamer_is_that_of_the_reference():
    parameters = inspect.signature(ZMQStreamer).parameters
    assert {
        name: parameter.default
        for name, parameter in parameters.items()
        if name != "streamer" and parameter.kind is not parameter.VAR_KEYWORD
    } == {
        "min_port": 49152,
        "max_port": 65535,
        "max_tries": 100,
        "copy": False,
        "timeout": 5,
    }
    assert next(iter(parameters)) == "streamer"


def test_a_zmq_streamer_is_a_parallel_streamer_over_zmq():
    with ZMQStreamer(Streamer(numbers, 5), 50_000, 60_000, 10, True, 1) as stream:
        assert isinstance(stream, ParallelStreamer)
        assert stream.backend == "zmq"
        assert list(stream) == [0, 1, 2, 3, 4]
        assert list(stream.cycle(7)) == [0, 1, 2, 3, 4, 0, 1]


def test_a_zmq_streamer_takes_the_keywords_of_a_parallel_streamer():
    options = {
        "prefetch": 3,
        "n_workers": 2,
        "stall_timeout": 60,
        "start_method": "forkserver",
        "open_ahead": 0,
        "timeout": None,
    }
    with ZMQStreamer(RoundRobinMux([Streamer(numbers, 3)] * 2), max_tries=10, **options) as stream:
        assert list(stream) == [0, 0, 1, 1, 2, 2]
        assert {name: getattr(stream, name) for name in options if name != "start_method"} == {
            name: value for name, value in options.items() if name != "start_method"
        }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 2}, "no option 'num_workers'; did you mean n_workers"),
        ({"workers": 2}, "no option 'workers'; did you mean n_workers"),
        ({"min_prot": 2}, "did you mean min_port"),
        ({"ring_bytes": 10**6}, "no option 'ring_bytes'"),
        ({"backend": "shm"}, "the backend of a ZMQStreamer is zmq.*ParallelStreamer"),
        ({"n_workers": 2}, "single generator cannot be split"),
    ],
    ids=str,
)
def test_what_a_zmq_streamer_does_not_take_is_refused_by_name(options, message):
    with pytest.raises(PescadorError, match=message) as caught:
        ZMQStreamer(Streamer(numbers, 3), **options)
    assert isinstance(caught.value, ValueError)


@every_backend
def test_without_a_timeout_workers_are_waited_for(backend):
    with ParallelStreamer(RoundRobinMux([Streamer(numbers, 3)] * 2), backend, 2, timeout=None) as stream:
        assert list(stream) == [0, 0, 1, 1, 2, 2]
        next(stream.iterate())


def test_numbers_are_any_whole_ones():
    mux = RoundRobinMux([Streamer(numbers, 3)] * 2)
    with ParallelStreamer(mux, "thread", np.int64(2), prefetch=4.0, open_ahead=np.uint8(1)) as stream:
        assert (stream.n_workers, stream.prefetch, stream.open_ahead) == (2, 4, 1)
        assert list(stream) == [0, 0, 1, 1, 2, 2]


# Life


@every_backend
def test_a_closed_stream_can_be_iterated_again(backend):
    stream = ParallelStreamer(Streamer(numbers, 5), backend)
    for _ in range(3):
        assert list(stream) == [0, 1, 2, 3, 4]
        stream.close()


@process_backends
def test_workers_are_kept_until_the_stream_is_closed(backend):
    with ParallelStreamer(Streamer(numbers, 5), backend) as stream:
        list(stream)
        pid = worker_pid(stream)
        list(stream)
        assert worker_pid(stream) == pid != os.getpid()
        stream.close()
        list(stream)
        assert worker_pid(stream) != pid


def test_no_worker_is_started_before_the_first_item():
    with ParallelStreamer(Streamer(numbers, 5)) as stream:
        iter(stream)
        assert list(stream.iterate(0)) == []
        assert stream.stats()["workers"] == []


@every_background
def test_it_counts_its_activations(backend):
    with ParallelStreamer(Streamer(numbers, 5), backend) as stream:
        assert stream.active == 0
        one, other = stream.iterate(), stream.iterate()
        next(one)
        next(other)
        assert stream.active == stream.stats()["streams"] == 2
        one.close()
        assert stream.active == stream.stats()["streams"] == 1
        assert list(other) == [1, 2, 3, 4]
        assert stream.active == stream.stats()["streams"] == 0


# Statistics


@every_backend
def test_statistics_tell_what_was_delivered(backend):
    n = 30
    with ParallelStreamer(Streamer(arrays, n), backend, prefetch=4) as stream:
        before = stream.stats()
        items = stream.iterate()
        next(items)
        during = stream.stats()
        list(items)
        stats = stream.stats()
    assert set(before) == set(during) == set(stats)
    assert (before["items"], before["workers"]) == (0, [])
    assert (during["items"], during["streams"]) == (1, 1)
    assert 0 <= during["queue_depth"] <= 4
    assert (stats["items"], stats["streams"], stats["queue_depth"]) == (n, 0, 0)
    (worker,) = stats["workers"]
    assert set(worker) == {*stats, "pid", "host", "open_streams"} - {"workers"}
    assert all(worker[key] == stats[key] for key in stats if key != "workers")
    assert 0 <= stats["consumer_wait"] < 100
    assert 0 <= stats["worker_wait"] < 100
    n_bytes = n * 8 * LARGE if backend in ("shm", "zmq") else 0
    assert n_bytes <= stats["bytes"] <= 1.1 * n_bytes
    assert n_bytes <= stats["copied"] <= 1.1 * n_bytes
    assert (worker["pid"] is None) == (backend not in ("shm", "zmq"))


def test_statistics_are_sums_over_the_workers():
    mux = RoundRobinMux([Streamer(arrays, 5, 10) for _ in range(4)])
    with ParallelStreamer(mux, "shm", n_workers=2) as stream:
        list(stream)
        stats = stream.stats()
    assert stats["items"] == 20
    assert [worker["items"] for worker in stats["workers"]] == [10, 10]
    assert len({worker["pid"] for worker in stats["workers"]}) == 2


@pytest.mark.parametrize("n_workers", [1, 2])
def test_more_announcements_than_a_socket_holds_are_taken_in_by_and_by(n_workers):
    """Each item needs a segment of its own, and there are more streams than commands fit in a socket."""
    streams = [Streamer(samples, 10, 5000) for _ in range(1500)]
    mux = RoundRobinMux(streams)
    with ParallelStreamer(mux, "shm", n_workers, ring_bytes=4096) as stream:
        assert sum(1 for _ in stream(3000)) == 3000


# Copies and nests


@every_backend
def test_a_parallel_streamer_can_be_pickled(backend):
    with ParallelStreamer(Streamer(numbers, 5), backend, prefetch=3, timeout=2) as stream:
        assert list(stream) == [0, 1, 2, 3, 4]
        with pickle.loads(pickle.dumps(stream)) as other:
            assert (other.backend, other.prefetch, other.timeout) == (backend, 3, 2)
            assert list(other) == [0, 1, 2, 3, 4]
            assert other._pool is not stream._pool


@every_backend
def test_a_deep_copy_has_workers_of_its_own(backend):
    with ParallelStreamer(Streamer(numbers, 5), backend) as stream:
        list(stream)
        with copy.deepcopy(stream) as other:
            assert other.stats()["workers"] == []
            assert list(other) == [0, 1, 2, 3, 4]
        assert list(stream) == [0, 1, 2, 3, 4]


@every_backend
def test_a_copy_shares_the_workers(backend):
    with ParallelStreamer(Streamer(numbers, 5), backend) as stream:
        other = copy.copy(stream)
        assert list(stream) == list(other) == [0, 1, 2, 3, 4]
        assert other.stats()["items"] == 10


@every_backend
def test_it_may_be_one_of_the_streams_of_a_mux(backend):
    plain = [Streamer(noise, 20, RNG), Streamer(numbers, 30, 1000)]
    with ParallelStreamer(plain[0], backend) as stream:
        mux = ShuffledMux([stream, plain[1]], random_state=0)
        # A mux in between would be one more; this one stands where the stream itself would.
        expected = ShuffledMux([Streamer(plain[0]), plain[1]], random_state=0)
        assert list(mux(100)) == list(expected(100))


@every_backend
def test_it_may_be_batched(backend):
    source = Streamer(samples, 20, 10)
    with ParallelStreamer(source, backend) as stream:
        assert_same(
            list(buffer_stream(stream, 6, partial=True)), list(buffer_stream(source, 6, partial=True))
        )
        batches = Streamer(buffer_stream, stream, 6)
        assert_same(list(batches), list(buffer_stream(source, 6)))


@every_backend
def test_it_may_run_in_a_worker_of_another(backend):
    inner = ParallelStreamer(Streamer(samples, 20, LARGE), backend)
    with ParallelStreamer(Streamer(buffer_stream, inner, 4), backend) as stream:
        expected = list(buffer_stream(Streamer(samples, 20, LARGE), 4))
        assert_same(list(stream), expected)
        assert_same(list(stream), expected)
    inner.close()


@every_background
def test_a_mux_of_them_runs_on_the_workers_of_another(backend):
    inner = [ParallelStreamer(Streamer(numbers, 10, 100 * i), "thread") for i in range(3)]
    mux = RoundRobinMux(inner)
    with ParallelStreamer(mux, backend, n_workers=2) as stream:
        assert list(stream) == list(RoundRobinMux([Streamer(numbers, 10, 100 * i) for i in range(3)]))
    for one in inner:
        one.close()


# Large arguments


def first_values(x, n):
    for i in range(n):
        yield float(x[i])


def writes(x):
    yield x.copy()
    x[:] = -1


@process_backends
@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_large_argument_is_shared_by_all_streams_that_have_it(backend, n_workers, monkeypatch):
    made = []
    fill = Segment.fill

    def counted(segment):
        made.append(segment.n_bytes)
        fill(segment)

    monkeypatch.setattr(Segment, "fill", counted)
    x = np.arange(LARGE, dtype="f8")
    mux = RoundRobinMux([Streamer(first_values, x, i) for i in range(1, 6)])
    with ParallelStreamer(mux, backend, n_workers) as stream:
        for _ in range(2):
            assert list(stream) == list(mux)
        assert made == [x.nbytes]


@process_backends
def test_two_large_arguments_are_two(backend):
    x = np.zeros(LARGE)
    mux = RoundRobinMux([Streamer(first_values, x, 1), Streamer(first_values, x + 1, 1)])
    with ParallelStreamer(mux, backend, 2) as stream:
        assert list(stream) == [0, 1]


@process_backends
def test_a_large_argument_is_read_only_in_a_worker_as_it_is_here(backend):
    x = np.arange(LARGE, dtype="f8")
    mux = RoundRobinMux([Streamer(writes, x), Streamer(writes, x)])
    with ParallelStreamer(mux, backend, 2) as stream:
        items = iter(stream)
        assert (next(items) == x).all()
        with pytest.raises(ValueError, match="read-only"):
            list(items)


@process_backends
def test_fortran_and_strided_arguments_arrive_with_equal_values(backend):
    x = np.arange(2.0 * LARGE).reshape(-1, 100)
    for argument in (x, np.asfortranarray(x), x[::2], x[:, ::-1], x.T):
        with ParallelStreamer(Streamer([[argument]]), backend) as stream:
            assert_same(next(iter(stream))[0], argument)


@process_backends
def test_a_recipe_that_is_large_without_arrays_is_sent(backend):
    text = "x" * 1_000_000
    with ParallelStreamer(Streamer([text, text[:10]]), backend) as stream:
        for _ in range(2):
            assert list(stream) == [text, text[:10]]
