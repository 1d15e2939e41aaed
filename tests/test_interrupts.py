"""A Ctrl-C is held back while it would lose something."""

import os
import signal
import threading

import pytest

from pescador.interrupts import interrupts_held


@pytest.fixture(autouse=True)
def handler():
    """Where the tests run in the background of a shell, Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_it_takes_effect_at_the_end_of_the_block(handler):
    done = []

    def block():
        with interrupts_held():
            interrupt()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is handler


def test_without_one_nothing_happens(handler):
    with interrupts_held():
        pass
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_error_of_the_block_is_shown_with_it():
    def block():
        with interrupts_held():
            interrupt()
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_handler_of_the_user_is_called():
    calls = []
    signal.signal(signal.SIGINT, lambda *arguments: calls.append(arguments))
    with interrupts_held():
        interrupt()
        assert calls == []
    assert [number for number, frame in calls] == [signal.SIGINT]


def test_where_it_is_ignored_it_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_held():
        interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_holds_nothing(handler):
    seen = []

    def look():
        with interrupts_held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [handler]
