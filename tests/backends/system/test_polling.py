"""Waiting by select(), which Windows has, is tested here on every system."""

import socket
import time
from contextlib import closing

import pytest

from pescador.backends.system.polling import POLLIN, POLLOUT, _SelectPoll, new_poll


@pytest.mark.parametrize("make", [new_poll, _SelectPoll])
def test_what_is_ready_is_told(make):
    here, there = socket.socketpair()
    with closing(here), closing(there):
        poll = make()
        poll.register(here, POLLIN)
        started = time.perf_counter()
        assert poll.poll(20) == []
        assert time.perf_counter() - started >= 0.015
        there.send(b"x")
        assert poll.poll() == [(here.fileno(), POLLIN)]
        poll.modify(here, POLLIN | POLLOUT)
        assert poll.poll(0) == [(here.fileno(), POLLIN | POLLOUT)]
        here.recv(1)
        assert poll.poll(0) == [(here.fileno(), POLLOUT)]
        poll.modify(here, POLLIN)
        there.close()
        ((fd, events),) = poll.poll(0)
        assert fd == here.fileno()
        assert events & POLLIN
