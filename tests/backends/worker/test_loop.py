"""The loop of a worker, without a transport."""

import pytest

from pescador import Streamer
from pescador.backends.worker import loop as worker_loop
from pescador.backends.worker.loop import WorkerLoop
from pescador.seeding import Seed


class Loop(WorkerLoop):
    """Obeys lists of commands, each when nothing is left to do, and keeps what it would send."""

    def __init__(self, *commands):
        super().__init__()
        self.commands["want"] = self._want
        self.coming = iter([*commands, [("stop",)]])
        self.now = iter(())
        self.sent = []

    def next_command(self, block):
        if block:
            self.now = iter(next(self.coming))
        return next(self.now, None)

    def _want(self, number):
        self.wanted = number

    def load(self, recipe):
        return recipe

    def send(self, number, item):
        self.sent.append((number, item))
        if number == self.wanted:
            self.wanted = None

    def send_snapshot(self, number, state):
        pass

    def send_end(self, number):
        pass

    def send_failure(self, number, error):
        raise error


def opened(number, n_credits):
    return "open", number, Streamer([number] * 9), Seed(0), None, n_credits


def streams(loop):
    """Return the streams of which it sent something, in order."""
    loop.run()
    return [number for number, _ in loop.sent]


def test_streams_have_their_turns():
    opening = [opened(1, 1), opened(2, 2), opened(3, 1)]
    assert streams(Loop(opening, [("credit", 3, 1), ("credit", 1, 1)])) == [1, 2, 3, 2, 3, 1]


@pytest.fixture
def slow(monkeypatch):
    """Have all streams count as slow ones."""
    monkeypatch.setattr(worker_loop, "URGENT_SECONDS", 0)


def test_the_stream_that_is_waited_for_runs_first(slow):
    opening = [opened(1, 1), opened(2, 1)]
    more = [("credit", 1, 1), ("credit", 2, 1), ("want", 2)]
    assert streams(Loop(opening, more, more)) == [1, 2, 2, 1, 2, 1]


def test_once_what_is_waited_for_was_made_others_have_their_turns(slow, monkeypatch):
    monkeypatch.setattr(worker_loop, "SLICE_ITEMS", 1)

    class Keeping(Loop):
        def send(self, number, item):
            self.sent.append((number, item))

        def keeps(self, number):
            return [other for other, _ in self.sent].count(number) > 1

    more = [("credit", 1, 2), ("credit", 2, 2), ("want", 2)]
    assert streams(Keeping([opened(1, 1), opened(2, 1)], more)) == [1, 2, 2, 1, 2, 1]


def test_a_stream_that_is_waited_for_and_cannot_run_keeps_no_other_from_running(slow):
    assert streams(Loop([opened(1, 1), opened(2, 0), ("want", 2)], [("credit", 1, 1)])) == [1, 1]


def test_a_stream_that_begins_has_to_take_its_turn(slow):
    assert streams(Loop([opened(1, 1), opened(2, 1), ("want", 2)])) == [1, 2]
