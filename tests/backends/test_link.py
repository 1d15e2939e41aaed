"""Waiting for the other side."""

import pytest

from pescador.backends import link
from pescador.backends.link import NAP_SECONDS, NAPPING_SECONDS, Naps


class Clock:
    """Stands for the module `time`: only naps take time."""

    def __init__(self):
        self.now = 0.0
        self.n_naps = 0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.n_naps += 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(link, "time", clock)
    return clock


def never():
    raise AssertionError("it sleeps")


def test_what_comes_soon_is_found_after_a_nap(clock):
    found = iter([None, None, "it"])
    assert Naps().wait(lambda: next(found), never) == "it"
    assert clock.n_naps == 3


def test_naps_come_to_an_end(clock):
    assert Naps().wait(lambda: None, lambda: "it") == "it"
    assert clock.now == pytest.approx(NAPPING_SECONDS, abs=NAP_SECONDS)


def test_after_a_long_wait_it_sleeps_at_once_until_one_was_short(clock):
    naps = Naps()

    def slept(seconds):
        """Wait for something that comes so late, and return how many naps there were."""
        clock.n_naps = 0
        end = clock.now + seconds
        naps.wait(lambda: clock.now >= end, lambda: clock.sleep(max(end - clock.now, 0)))
        return clock.n_naps - 1  # the last was the sleep

    n_naps = round(NAPPING_SECONDS / NAP_SECONDS)
    assert slept(2 * NAPPING_SECONDS) == pytest.approx(n_naps, abs=1)
    assert slept(NAPPING_SECONDS / 2) == 0
    assert slept(2 * NAPPING_SECONDS) == pytest.approx(n_naps, abs=1)
    assert slept(2 * NAPPING_SECONDS) == 0


def test_it_returns_nothing_if_the_sleep_ended_without(clock):
    assert Naps().wait(lambda: False, lambda: False) is False
