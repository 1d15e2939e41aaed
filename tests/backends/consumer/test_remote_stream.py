"""How far a stream may be ahead, as its worker is told."""

import pytest

from pescador import Streamer
from pescador.backends.consumer.remote_stream import RemoteStream
from pescador.backends.consumer.worker_handle import WorkerHandle


class Worker(WorkerHandle):
    """Keeps the commands that it gets. Its streams have as many items as anybody wants."""

    window_bytes = 1 << 23

    def __init__(self):
        super().__init__(None)
        self.sent = []

    def command(self, name, *arguments):
        self.sent.append((name, *arguments))

    def wait(self, stream):
        stream.queue.append("item")

    def end_stalled(self):
        raise AssertionError


@pytest.fixture
def worker():
    return Worker()


def credits_of(worker, stream, n_items):
    """Take items from a stream, and return the credits that its worker got for them."""
    for _ in range(n_items):
        assert next(stream) == "item"
    return sum(arguments[-1] for name, *arguments in worker.sent if name == "credit")


def test_credits_are_returned_half_a_window_at_a_time(worker):
    stream = RemoteStream(worker, 1, 5, Streamer([]))
    assert [credits_of(worker, stream, 1) for _ in range(6)] == [0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("window", [8, 9, 100])
def test_none_are_where_the_worker_has_enough_for_all_items(window, worker):
    stream = RemoteStream(worker, 1, window, Streamer([]), max_iter=8)
    assert credits_of(worker, stream, 8) == 0
    stream.allow(200)
    stream.allow(None)
    stream.widen(1)
    assert worker.sent == []


@pytest.mark.parametrize("state", [None, {"n": 90}])
def test_they_are_where_it_has_not(worker, state):
    limit = 10 if state is None else 100
    stream = RemoteStream(worker, 1, 4, Streamer([]), limit, state)
    assert credits_of(worker, stream, 3) == 2
    stream.allow(9)
    assert credits_of(worker, stream, 3) == 2 + 5
    assert stream.window == 9  # it gives ten, of which two were returned


def test_a_stream_that_was_opened_early_gets_what_it_needs_when_it_is_needed(worker):
    stream = RemoteStream(worker, 1, 2, Streamer([]), 10)
    stream.allow(50)
    assert credits_of(worker, stream, 10) == 48
    assert stream.n_items == 10
