"""The loop of a worker, without a transport."""

from collections import deque

from pescador import Streamer
from pescador.backends.worker import WorkerLoop
from pescador.seeding import Seed


class Loop(WorkerLoop):
    """Obeys a list of commands, and keeps what it would send."""

    def __init__(self, *commands):
        super().__init__()
        self.commands = deque(commands)
        self.sent = []

    def next_command(self, block):
        return self.commands.popleft() if self.commands else ("stop",) if block else None

    def load(self, recipe):
        return recipe

    def send(self, number, item):
        self.sent.append((number, item))

    def send_end(self, number):
        pass

    def send_failure(self, number, error):
        raise error


def opened(number, n_credits):
    return "open", number, Streamer(range(number)), Seed(0), None, n_credits


def test_streams_have_their_turns():
    loop = Loop(opened(1, 9), opened(2, 9), opened(3, 9))
    loop.run()
    assert loop.sent == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]


def test_the_stream_that_is_waited_for_runs_first():
    loop = Loop(opened(1, 9), opened(2, 9), opened(3, 9))
    loop.urgent = 2
    loop.run()
    assert [number for number, _ in loop.sent] == [2, 2, 1, 3, 3, 3]


def test_a_stream_that_is_waited_for_and_cannot_run_keeps_no_other_from_running():
    loop = Loop(opened(1, 9), opened(2, 0))
    loop.urgent = 2
    loop.run()
    assert loop.sent == [(1, 0)]
