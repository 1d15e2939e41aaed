"""When the loop of a worker process sends what is pending. Its consumer is only a connection."""

import time
from contextlib import closing

import pytest

from pescador.backends.protocol import messages
from pescador.backends.protocol.connection import Connection
from pescador.backends.protocol.transport import Sender
from pescador.backends.worker.encoding_loop import PENDING_RECORD_BYTES, STARVING_SECONDS
from pescador.backends.worker.process_loop import ProcessLoop


class Kept(Sender):
    """Keeps the streams of the items in each message."""

    def __init__(self, connection):
        super().__init__(connection)
        self.sent = []

    def allocate(self, n_bytes):
        raise AssertionError("no item is large")

    allocate_apart = allocate

    def free(self, extents):
        pass

    def send(self, message, extents):
        message = b"".join(message)
        if message.startswith(messages.ITEMS):
            entries = messages.unpack_items(memoryview(message))[-1]
            self.sent.append([stream for stream, _, bodies, _ in entries for _ in bodies])


@pytest.fixture
def loop():
    here, there = Connection.pair()
    with closing(here), closing(there):
        loop = ProcessLoop(there, Kept(there))
        loop.other = here
        yield loop


@pytest.fixture
def sent(loop):
    return loop._sender.sent


def test_what_is_pending_waits_for_what_is_wanted(loop, sent):
    loop.obey("want", 2, 0)
    loop.send(1, b"a")
    loop.obey_commands(block=False)
    assert sent == []
    loop.send(2, b"b")
    assert sent == []  # until the slice ends
    loop.obey_commands(block=False)
    assert sent == [[1, 2]]


@pytest.fixture
def wait(monkeypatch):
    """Let so many seconds pass on the clock."""
    clock = [time.perf_counter()]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def wait(seconds):
        clock[0] += seconds

    return wait


def test_a_consumer_that_starves_gets_many_items_at_once(loop, sent, wait):
    loop._begin_pending()
    loop.obey("want", 1, 1, True)
    assert not loop.keeps(1)
    for _ in range(3):
        loop.send(1, b"a")
        loop.send(2, b"b")
        assert loop.keeps(1)
        loop.obey_commands(block=False)
        assert sent == []
    wait(STARVING_SECONDS)
    loop.obey_commands(block=False)
    assert sent == [[1, 2] * 3]
    assert not loop.keeps(1)


@pytest.mark.parametrize("number", [0, 1])
def test_it_does_not_wait_for_what_a_generator_keeps_back(number, loop, sent, wait):
    wait(1)
    loop._begin_pending()
    loop.obey("want", 1, 1, True)
    loop.send(1, b"a")
    loop.obey_commands(block=False)
    assert sent == []
    assert loop.wake_up(number, 1)
    assert sent == [[1]]


def test_one_that_starves_no_more_goes_on_at_once(loop, sent, wait):
    loop.obey("want", 1, 0, True)
    loop.send(1, b"a")
    wait(STARVING_SECONDS)
    loop.obey_commands(block=False)
    loop.send(2, b"b")
    loop.obey("want", 1, 1, False)
    loop.send(1, b"c")
    loop.obey_commands(block=False)
    assert sent == [[1], [2, 1]]


def test_nothing_is_wanted_while_a_message_is_under_way(loop, sent):
    loop.obey("want", 1, 0)
    loop.send(1, b"a")
    loop.obey_commands(block=False)
    loop.send(1, b"b")
    loop.obey("want", 1, 0)
    assert loop.wanted is None
    assert loop.wake_up(1, 0)
    assert sent == [[1]]


def test_what_is_wanted_through_the_pipe_is_sent_at_once(loop, sent):
    loop.send(1, b"a")
    assert loop.wake_up(2, 0)
    loop.send(1, b"b")
    assert sent == []
    loop.send(2, b"c")
    assert sent == [[1, 1, 2]]
    loop.send(2, b"d")
    assert loop.wake_up(0, 1)
    assert sent == [[1, 1, 2], [2]]


def test_a_command_that_the_main_thread_sees_late_takes_nothing_back(loop, sent):
    assert loop.wake_up(2, 0)
    loop.obey("want", 2, 0)
    loop.send(1, b"a")
    loop.send(2, b"b")
    assert sent == [[1, 2]]


@pytest.mark.parametrize(
    "wants", [[(0, 0), (2, 0)], [(2, 0), (0, 0)], [(2, 0), (3, 0)], [(0, 1), (0, 0), (2, 9)]]
)
def test_what_one_thread_wants_does_not_supersede_what_another_one_does(wants, loop, sent):
    for want in wants:
        assert loop.wake_up(*want)
    loop.send(1, b"a")
    assert sent == [[1]]


def test_a_wake_up_for_which_there_is_no_room_is_to_be_repeated(loop, sent):
    loop.send(1, b"a")
    connection, other = loop._connection, loop.other
    n = 0
    while not connection.has_unsent:
        connection.send(b"filler")
        n += 1
    assert not loop.wake_up(1, 0)
    assert sent == []
    for _ in range(n - 1):
        other.receive()
    assert loop.wake_up(1, 0)
    assert sent == [[1]]


def test_an_item_of_large_arrays_is_sent_once(loop, sent):
    loop.obey("want", 0, 0)
    with loop._lock:
        loop._add(1, messages.SCATTERED, b"", PENDING_RECORD_BYTES)
    loop.flush()
    assert sent == [[1]]
