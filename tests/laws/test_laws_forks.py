"""Law 1 after a fork: what a process holds is its own, and neither side sees what the other does later."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import pescador
from pescador import ParallelStreamer, Streamer
from pescador.backends.processes.forkserver import Forkserver

from ..forks import Child
from ..kinds import KINDS, every_kind

SIZE = 20_000  # values of an array that has a record of its own


def filled(n, size=SIZE):
    for i in range(n):
        yield {"x": np.full(size, i, "f8"), "y": np.full(size, -i, "i4")}


def in_place(n, size=SIZE):
    for i in range(n):
        item = {"x": pescador.empty(size), "y": pescador.empty(size, "i4")}
        item["x"][:], item["y"][:] = i, -i
        yield item


def pickled(n, size=SIZE):
    for item in filled(n, size):
        yield [item["x"], item["y"]]


def contents(item):
    """Return the extremes of all arrays."""
    arrays = item.values() if isinstance(item, dict) else item
    return [(float(array.min()), float(array.max())) for array in arrays]


EXPECTED = [(0, 0), (0, 0)]

SHAPES = {
    "arrays": (filled, {}),
    "in place": (in_place, {}),
    "pickled": (pickled, {}),
    "segments of one record": (filled, {"ring_bytes": 1 << 14}),
    "a ring of two": (filled, {"ring_bytes": 1 << 19}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_child_finds_its_item_as_it_was_whatever_becomes_of_it_here(shape):
    """The parent drops the item and takes all others, which come to lie in its place."""
    source, options = SHAPES[shape]
    with ParallelStreamer(Streamer(source, 60), **options) as stream:
        items = iter(stream)
        held = [next(items)]

        def look(wait):
            wait()
            return contents(held[0])

        child = Child(look)
        held.clear()
        for _ in items:
            pass
        child.go()
        assert child.result() == EXPECTED


@every_kind
def test_neither_side_sees_what_the_other_writes(kind):
    with ParallelStreamer(Streamer(filled, 3), **kind) as stream:
        item = next(iter(stream))
        part = item["x"][5:]

        def write(wait):
            part[:] = -7
            wait()
            return contents(item)

        child = Child(write)
        item["y"][:] = 9
        child.go()
        assert child.result() == [(-7, 0), (0, 0)]
        assert contents(item) == [(0, 0), (9, 9)]


def test_what_is_held_when_its_pool_is_closed_is_its_holders_too():
    with ParallelStreamer(Streamer(filled, 3), "shm") as stream:
        item = next(iter(stream))

    def write(wait):
        wait()
        item["y"][:] = 7
        return contents(item)

    child = Child(write)
    item["x"][:] = 9
    child.go()
    assert child.result() == [(0, 0), (7, 7)]
    assert contents(item) == [(9, 9), (0, 0)]


def test_a_generator_that_forks_has_arrays_of_its_own():
    def forking(n):
        for i in range(n):
            array = pescador.empty(SIZE)
            array[:] = i

            def write(wait, array=array, i=i):
                wait()
                same = bool((array == i).all())
                array[:] = -1
                return same

            child = Child(write)
            array[:] = i + 100
            child.go()
            same = child.result()
            del write
            yield {"x": array, "same": np.bool_(same)}

    with ParallelStreamer(Streamer(forking, 6), "shm") as stream:
        for i, item in enumerate(stream):
            assert item["same"]
            assert (item["x"] == i + 100).all()


def test_a_child_of_a_child_has_its_own_again():
    with ParallelStreamer(Streamer(filled, 30), "shm") as stream:
        items = iter(stream)
        held = [next(items)]

        def child(wait):
            (item,) = held
            wait()

            def grandchild(wait):
                wait()
                item["x"][:] = 5
                return contents(item)

            inner = Child(grandchild)
            item["y"][:] = 6
            inner.go()
            return inner.result(), contents(item)

        process = Child(child)
        held.clear()
        for _ in items:
            pass
        process.go()
        assert process.result() == ([(5, 5), (0, 0)], [(0, 0), (6, 6)])


def test_a_child_may_drop_what_it_holds_and_open_workers_of_its_own():
    with ParallelStreamer(Streamer(filled, 40), "shm", start_method="fork") as stream:
        items = iter(stream)
        held = [next(items)]

        def work(wait):
            held.clear()
            wait()
            with ParallelStreamer(Streamer(filled, 3), "shm", start_method="fork") as other:
                return [contents(item)[0][0] for item in other]

        child = Child(work)
        assert [contents(item)[0][0] for item in items] == list(range(1, 40))
        child.go()
        assert child.result() == [0, 1, 2]
        assert contents(held[0]) == EXPECTED


def test_threads_may_fork_at_once():
    with ParallelStreamer(Streamer(filled, 40), "shm") as stream:
        items = iter(stream)
        held = [next(items) for _ in range(4)]
        barrier = threading.Barrier(4)
        children = [None] * 4

        def fork(i):
            def look(wait):
                wait()
                return contents(held[i])[0], len(os.listdir("/proc/self/fd"))

            barrier.wait()
            children[i] = Child(look)

        threads = [threading.Thread(target=fork, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held.clear()
        for _ in items:
            pass
        for child in children:
            child.go()
        assert [child.result()[0] for child in children] == [(i, i) for i in range(4)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_descriptor_is_left_in_either_process():
    def descriptors():
        return sorted(os.listdir("/proc/self/fd"), key=int)

    with ParallelStreamer(Streamer(filled, 9), "shm") as stream:
        item = next(iter(stream))
        gc.collect()  # or what other tests left in circles may be closed in between
        before = len(descriptors())
        child = Child(lambda wait: len(descriptors()))
        # Its own pipes; it gives up the connection to the process from which workers are forked.
        assert child.result() == before + 2 - (Forkserver.current is not None)
        assert len(descriptors()) == before
        assert contents(item) == EXPECTED


def _look(item, go, found):
    go.wait()
    found.put(contents(item))


@pytest.mark.parametrize("kind", [KINDS["shm-forkserver"], KINDS["shm-fork"]], ids=["forkserver", "fork"])
def test_processes_of_multiprocessing_have_their_own(kind):
    fork = multiprocessing.get_context("fork")
    go, found = fork.Event(), fork.SimpleQueue()
    with ParallelStreamer(Streamer(filled, 40), **kind) as stream:
        items = iter(stream)
        process = fork.Process(target=_look, args=(next(items), go, found))
        process.start()
        process._args = None
        for _ in items:
            pass
        go.set()
        assert found.get() == EXPECTED
        process.join()
        process.close()
    found.close()


def test_what_runs_before_an_exec_has_its_own():
    with ParallelStreamer(Streamer(filled, 3), "shm") as stream:
        item = next(iter(stream))

        def prepare():
            item["x"][:] = -1

        subprocess.run([sys.executable, "-c", ""], preexec_fn=prepare, check=True)
        assert contents(item) == EXPECTED
