"""Looking again a few times before one goes to sleep."""

import pytest

from pescador.backends.consumer import backoff
from pescador.backends.consumer.backoff import BACKOFF_SECONDS, STEP_SECONDS, Backoff


class Clock:
    """Stands for the module `time`: only sleeping takes time."""

    def __init__(self):
        self.now = 0.0
        self.n_steps = 0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.n_steps += 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(backoff, "time", clock)
    return clock


def never():
    raise AssertionError("it sleeps")


def test_what_comes_soon_is_found_without_going_to_sleep(clock):
    found = iter([None, None, "it"])
    assert Backoff().wait(lambda: next(found), never) == "it"
    assert clock.n_steps == 3


def test_looking_again_comes_to_an_end(clock):
    assert Backoff().wait(lambda: None, lambda: "it") == "it"
    assert clock.now == pytest.approx(BACKOFF_SECONDS, abs=STEP_SECONDS)


def test_after_a_long_wait_it_sleeps_at_once_until_one_was_short(clock):
    waits = Backoff()

    def slept(seconds):
        """Wait for something that comes so late, and return how often it looked again."""
        clock.n_steps = 0
        end = clock.now + seconds
        waits.wait(lambda: clock.now >= end, lambda: clock.sleep(max(end - clock.now, 0)))
        return clock.n_steps - 1  # the last was the sleep

    n_steps = round(BACKOFF_SECONDS / STEP_SECONDS)
    assert slept(2 * BACKOFF_SECONDS) == pytest.approx(n_steps, abs=1)
    assert slept(BACKOFF_SECONDS / 2) == 0
    assert slept(2 * BACKOFF_SECONDS) == pytest.approx(n_steps, abs=1)
    assert slept(2 * BACKOFF_SECONDS) == 0


def test_it_returns_nothing_if_the_sleep_ended_without(clock):
    assert Backoff().wait(lambda: False, lambda: False) is False
