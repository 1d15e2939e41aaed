"""Sending without blocking, and waiting for the other side."""

import os
import socket
import threading
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pescador.backends.protocol import connection
from pescador.backends.protocol.connection import (
    MAX_MESSAGE,
    Connection,
    close_all,
)


@contextmanager
def pair():
    here, there = Connection.pair()
    with closing(here), closing(there):
        yield here, there


def fill(sender):
    """Send until there is no more room; return how many messages were sent whole."""
    n = 0
    while not sender.has_unsent:
        sender.send(b"filler")
        n += 1
    return n - 1


class Socket:
    """Stands for a socket, and does something just before or after it has sent."""

    def __init__(self, sender, before=lambda: None, after=lambda: None):
        self.socket, self.before, self.after = sender.socket, before, after
        sender.socket = self

    def send(self, message, flags):
        before, self.before = self.before, lambda: None
        after, self.after = self.after, lambda: None
        before()
        n = self.socket.send(message, flags)
        after()
        return n

    def __getattr__(self, name):
        return getattr(self.socket, name)


SIZES = st.integers(1, 100) | st.integers(MAX_MESSAGE - 1, MAX_MESSAGE + 1) | st.integers(1, 5 * MAX_MESSAGE)


@given(st.lists(st.tuples(SIZES, st.integers(0, 2)), max_size=12), st.lists(st.booleans(), min_size=1))
def test_what_does_not_fit_is_sent_later_in_order_and_as_it_was(messages, reads):
    with pair() as (here, there), open(os.devnull) as file:
        sent = [bytes([i]) * size for i, (size, _) in enumerate(messages)]
        got = []
        for i, (_, n_descriptors) in enumerate(messages):
            here.send(sent[i], handles=[file.fileno()] * n_descriptors)  # never blocks
            if reads[i % len(reads)] and (received := there.receive(block=False)):
                got.append(received)
        while len(got) < len(sent):
            here.flush()
            if received := there.receive(block=False):
                got.append(received)
        assert [message for message, _ in got] == sent
        assert [len(descriptors) for _, descriptors in got] == [n for _, n in messages]
        for _, descriptors in got:
            assert all(os.path.sameopenfile(fd, file.fileno()) for fd in descriptors)
            close_all(descriptors)
        assert not here.has_unsent


def test_a_descriptor_may_be_closed_before_its_message_is_sent():
    with pair() as (here, there):
        n = fill(here)
        out, into = os.pipe()
        here.send(b"pipe", handles=[into])
        os.close(into)
        for _ in range(n):
            there.receive()
        assert here.flush()
        there.receive()
        message, descriptors = there.receive()
        assert message == b"pipe"
        close_all(descriptors)
        assert os.read(out, 1) == b""
        os.close(out)


def test_handles_are_kept_until_they_have_come_but_on_linux(monkeypatch):
    monkeypatch.setattr(connection, "sys", SimpleNamespace(platform="other"))
    with pair() as (here, there), open(os.devnull) as file:
        for i in range(3):
            here.send(b"message", handles=[file.fileno()] * i)
        assert [len(handles) for handles in here._lent] == [1, 2]
        assert here.receive(block=False) is None
        assert len(here._lent) == 2
        for _ in range(3):
            close_all(there.receive()[1])
        assert here.receive(block=False) is None
        assert not here._lent


def test_a_wait_sends_what_is_queued():
    with pair() as (here, there):
        n = fill(here)
        here.send(b"last")

        def answer():
            for _ in range(n + 1):
                there.receive()
            assert there.receive()[0] == b"last"
            there.send(b"answer")

        reader = threading.Thread(target=answer)
        reader.start()
        assert here.receive()[0] == b"answer"
        reader.join()


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_sent_while_something_is_sent_is_neither_lost_nor_in_between(in_thread, when):
    """As a finalizer does that the garbage collector runs just then, or another thread."""
    long = b"x" * (MAX_MESSAGE + 1)

    def send_another():
        if in_thread:
            thread = threading.Thread(target=here.send, args=[long])
            thread.start()
            thread.join()
        else:
            here.send(long)

    with pair() as (here, there):
        Socket(here, **{when: send_another})
        here.send(b"first")
        assert there.receive()[0] == b"first"
        assert there.receive(block=False) == (long, [])
        Socket(here, **{when: send_another})
        here.send(long)
        assert [there.receive() for _ in range(2)] == [(long, [])] * 2
        assert not here.has_unsent


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, BrokenPipeError])  # of a signal handler
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("size", [1, 2 * MAX_MESSAGE])
def test_nothing_is_sent_after_an_exception_that_leaves_open_whether_a_message_was(error, when, size):
    def raise_it():
        raise error

    with pair() as (here, there):
        Socket(here, **{when: raise_it})
        with pytest.raises(error):
            here.send(b"x" * size)
        assert here.broken == f"a message was lost to a {error.__name__}"
        with pytest.raises(BrokenPipeError):
            here.send(b"y")
        assert not here.has_unsent
        assert there.receive(block=False) in (None, (b"x" * size, []))
        assert there.receive(block=False) is None


def test_an_end_is_closed_when_the_thread_that_is_sending_has_sent():
    """Otherwise its message might go to another file that gets the same number."""
    with pair() as (here, there):
        closer = threading.Thread(target=here.close)

        def close():
            closer.start()
            closer.join()
            assert here.socket.fileno() >= 0

        Socket(here, before=close)
        here.send(b"x")
        assert here.socket.fileno() == -1
        assert there.receive() == (b"x", [])
        with pytest.raises(EOFError):
            there.receive()
        with pytest.raises(BrokenPipeError):
            here.send(b"y")


def test_hanging_up_needs_no_room():
    with pair() as (here, there):
        n = fill(here)
        here.send(b"unsent")
        here.hang_up()
        for _ in range(n):
            assert there.receive() == (b"filler", [])
        with pytest.raises(EOFError):
            there.receive()
        with pytest.raises(BrokenPipeError):
            there.send(b"x")


@pytest.fixture
def default_timeout():
    socket.setdefaulttimeout(0.001)
    yield
    socket.setdefaulttimeout(None)


def test_the_default_timeout_of_sockets_does_not_matter(default_timeout):
    with (
        pair() as (here, there),
        closing(Connection(socket.socket(fileno=os.dup(there.socket.fileno())))) as copy,
    ):
        for end in (here, there, copy):
            assert end.socket.gettimeout() == 0
            assert not os.get_blocking(end.socket.fileno())
