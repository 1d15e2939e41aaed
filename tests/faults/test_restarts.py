"""Workers that die are replaced, and no stream notices: law 2 under SIGKILL.

PESCADOR_LAW_EXAMPLES sets the number of trees; each is killed up to three times.
"""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pescador import (
    RNG,
    ChainMux,
    ParallelStreamer,
    PescadorError,
    RoundRobinMux,
    StochasticMux,
    Streamer,
    WorkerError,
)

from ..laws.test_laws_resuming import N, hurry, rooted
from ..laws.test_laws_workers import assert_same, sized

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))

BACKENDS = pytest.mark.parametrize("backend", ["shm", "zmq"])


def kill_one(stream):
    """Kill a worker of a ParallelStreamer."""
    with suppress(ProcessLookupError):  # another one was killed here just now
        os.kill(random.choice(stream.stats()["workers"])["pid"], signal.SIGKILL)


@BACKENDS
@pytest.mark.parametrize("n", [1, 2, 3])
def test_trees_give_the_same_items_whatever_is_killed(backend, n):
    with ParallelStreamer(RoundRobinMux([Streamer(hurry)] * n), backend, n, max_restarts=10**6) as first:

        @settings(max_examples=EXAMPLES or 12)
        @given(rooted, st.sets(st.integers(0, N), max_size=3), st.sampled_from([None, 1, 2]), st.booleans())
        def same(tree, kills, prefetch, hurried):
            if hurried:
                list(first)
            stream = ParallelStreamer(tree, backend, n, prefetch=prefetch, max_restarts=10**6)
            stream._pool = first._pool
            items, expected = [], list(tree(N))
            try:
                for item in stream(N):
                    items.append(item)
                    if len(items) in kills:
                        kill_one(stream)
            except (
                WorkerError
            ) as error:  # two kills may happen to hit one item, most likely while it is opened
                if len(kills) < 2 or "has ended two workers" not in str(error):
                    raise
                expected = expected[: len(items)]
            assert_same(items, expected)

        same()


def dying(n, item, path, how):
    """Items, of which one ends the process, if no other process did before."""
    for i in range(n):
        if i == item and mark(path):
            if how == "while it is made":
                os.kill(os.getpid(), signal.SIGKILL)
            yield Dying(how, i)
        else:
            yield Dying("", i)


def mark(path):
    """Whether this is the first call."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Dying:
    """An item that ends the process that pickles it."""

    def __init__(self, how, i):
        self.how, self.i = how, i

    def __reduce__(self):
        if self.how:
            os.kill(os.getpid(), signal.SIGKILL)
        return Dying, ("", self.i)


@BACKENDS
@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize("how", ["while it is made", "while it is encoded"])
@pytest.mark.parametrize("item", [0, 1, 9])
def test_a_worker_may_die_at_any_step_of_an_item(backend, start_method, how, item, tmp_path):
    source = Streamer(dying, 10, item, tmp_path / "died", how)
    with ParallelStreamer(source, backend, max_restarts=1, start_method=start_method) as stream:
        assert [found.i for found in stream] == list(range(10))
        assert stream.stats()["restarts"] == 1
        assert stream.stats()["items"] == 10


def deadly(n, item):
    for i in range(n):
        if i == item:
            os._exit(3)
        yield i


@BACKENDS
def test_an_item_that_ends_two_workers_is_poison_and_other_streams_go_on(backend, caplog):
    mux = RoundRobinMux([Streamer(deadly, 9, 5), Streamer(range(9))])
    with ParallelStreamer(mux, backend, 2, max_restarts=9) as stream:
        beside = ParallelStreamer(RoundRobinMux([range(9)]), backend, 2, max_restarts=9)
        beside._pool = stream._pool
        other = iter(beside)
        assert next(other) == 0
        items = iter(stream)
        assert list(islice(items, 10)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        with pytest.raises(WorkerError, match=r"item 5 of Streamer\(deadly, 9, 5\) has ended two workers"):
            next(items)
        assert stream.stats()["restarts"] == 2
        assert len([r for r in caplog.records if "It is replaced by worker process" in r.message]) == 2
        assert list(other) == list(range(1, 9))
        assert list(stream(4)) == [0, 0, 1, 1]


@BACKENDS
def test_when_there_were_too_many_the_death_is_raised_and_the_next_iteration_has_a_new_pool(backend):
    with ParallelStreamer(Streamer(sized, 100, 3, RNG), backend, max_restarts=2, prefetch=2) as stream:
        items = iter(stream)
        for _ in range(3):
            list(islice(items, 20))
            kill_one(stream)
        with pytest.raises(WorkerError, match="SIGKILL"):
            list(items)
        assert len(list(stream)) == 100


@BACKENDS
def test_what_came_stays_valid_also_if_nobody_waited_for_it(backend, tmp_path):
    """Items in shared memory, too; a new iteration finds the worker dead, and it goes on beside them."""
    path = tmp_path / "made"
    tree = ChainMux([Streamer(large, 12, path)], random_state=0)
    expected = list(tree)
    path.unlink()
    with ParallelStreamer(tree, backend, max_restarts=3, prefetch=6) as stream:
        items = iter(stream)
        found = [next(items)]
        wait_until(lambda: path.stat().st_size == 6)
        former = stream.stats()["workers"][0]["pid"]
        kill_one(stream)
        wait_until(lambda: not alive(former))
        assert_same(list(stream), expected)
        assert stream.stats()["workers"][0]["pid"] != former
        kept = list(items)
        kill_one(stream)
        assert_same(found + kept, expected)


def large(n, path):
    for i in counted(n, path):
        yield {"x": np.full(40_000, i)}


def wait_until(is_so):
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def counted(n, path):
    """Items, each of which leaves a byte in a file."""
    for i in range(n):
        with path.open("ab") as file:
            file.write(b".")
        yield i


@BACKENDS
@pytest.mark.parametrize("prefetch", [1, 2, 8])
def test_a_stream_is_never_further_ahead_than_it_may_be(backend, prefetch, tmp_path):
    path = tmp_path / "made"
    with ParallelStreamer(Streamer(counted, 40, path), backend, prefetch=prefetch, max_restarts=9) as stream:
        again = 0  # items that were made a second time
        for i, item in enumerate(stream):
            assert item == i
            assert path.stat().st_size <= i + 1 + prefetch + again
            if i in (10, 11, 25):
                kill_one(stream)
                again += i + 1 + prefetch
    assert path.stat().st_size <= 40 + again


@BACKENDS
def test_of_a_mux_in_one_worker_only_what_its_open_streams_gave_is_made_again(backend, tmp_path):
    path = tmp_path / "made"
    streams = [Streamer(counted, 20, path) for _ in range(50)]
    mux = ChainMux(streams, random_state=0)
    with ParallelStreamer(mux, backend, max_restarts=1, prefetch=4) as stream:
        hurried = ParallelStreamer(Streamer(hurry))
        hurried._pool = stream._pool
        list(hurried)
        for i, _ in enumerate(stream):
            if i == 900:
                kill_one(stream)
    assert path.stat().st_size <= 1000 + 20 + 4 + 32 + 20  # a stream, what was ahead, a slice, another stream


@BACKENDS
def test_threads_with_streams_of_one_pool_all_go_on(backend):
    mux = StochasticMux([Streamer(sized, 20, 10, RNG) for _ in range(20)], 5, 4, random_state=0)
    expected = list(mux(300))
    found = {}
    with ParallelStreamer(mux, backend, 2, max_restarts=100) as stream:

        def take(i):
            found[i] = list(stream(300))

        threads = [threading.Thread(target=take, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(0.02)  # somewhere in the middle, wherever that is
            if stream.stats()["workers"]:
                kill_one(stream)
        for thread in threads:
            thread.join()
    for i in range(3):
        assert_same(found[i], expected)


def stuck(n, path):
    for i in range(n):
        if i == 5 and mark(path):
            time.sleep(1000)
        yield i


@BACKENDS
def test_a_worker_that_stalls_is_replaced_too(backend, tmp_path, caplog):
    source = Streamer(stuck, 10, tmp_path / "stuck")
    with ParallelStreamer(source, backend, max_restarts=1, stall_timeout=4) as stream:
        assert list(stream) == list(range(10))
    assert "delivered nothing for" in caplog.text
    assert "in stuck" in caplog.text


@BACKENDS
def test_closing_while_workers_die_leaves_nothing(backend):
    for i in range(10):
        with ParallelStreamer(Streamer(sized, 10**6, 10, RNG), backend, max_restarts=10**6) as stream:
            items = iter(stream)
            list(islice(items, 1 + i))
            kill_one(stream)
            closing = threading.Thread(target=stream.close)
            closing.start()
            with pytest.raises(PescadorError):
                list(islice(items, 10**6))
            closing.join()


@BACKENDS
@pytest.mark.parametrize("closes", ["here", "elsewhere"])
def test_closing_while_a_worker_is_being_replaced_leaves_nothing(backend, closes, monkeypatch):
    with ParallelStreamer(Streamer(sized, 10**6, 10, RNG), backend, max_restarts=3) as stream:
        items = iter(stream)
        next(items)
        pool = stream._pool.get()
        start = pool.start
        others = []

        def interrupted(number):
            worker = start(number)
            if closes == "here":  # as a signal handler would
                stream.close()
            else:
                others.append(threading.Thread(target=stream.close))
                others[0].start()
                wait_until(lambda: pool._closed)
            return worker

        monkeypatch.setattr(pool, "start", interrupted)
        kill_one(stream)
        with pytest.raises(PescadorError):
            list(islice(items, 10**6))
        for thread in others:
            thread.join()


def test_threads_do_not_die_and_the_option_changes_nothing():
    with ParallelStreamer(Streamer(range(5)), "thread", max_restarts=3) as stream:
        assert list(stream) == list(range(5))
        assert stream.stats()["restarts"] == 0
    for wrong in (-1, 1.5, None):
        with pytest.raises(PescadorError, match="max_restarts"):
            ParallelStreamer(Streamer(range(5)), max_restarts=wrong)
