"""Leases: what holds a record, and what becomes of it at a fork."""

import gc
import itertools
import os
import threading

import numpy as np
import pytest

from pescador.backends.system import leases as leases_module
from pescador.backends.system import shared_memory
from pescador.backends.system.leases import Leases
from pescador.testing import Tagged

from ...forks import Child


class Held:
    """A thread that has something in a local variable until it is told to end."""

    def __init__(self, value):
        self.end = threading.Event()
        ready = threading.Event()

        def hold():
            local = values.pop()
            ready.set()
            self.end.wait()
            del local

        values = [value]
        self.thread = threading.Thread(target=hold)
        self.thread.start()
        ready.wait()

    def drop(self):
        self.end.set()
        self.thread.join()


class Box:
    """Something in this thread."""

    def __init__(self, value):
        self.value = value

    def drop(self):
        del self.value


class Cycle(Box):
    """Something that only the garbage collector frees."""

    def drop(self):
        self.value = [self.value]
        self.value.append(self.value)
        del self.value
        gc.collect()


WAYS = {
    "array": lambda array: Box(array),
    "slice": lambda array: Box(array[10:20]),
    "reshape": lambda array: Box(array.reshape(8, 8)),
    "other dtype": lambda array: Box(array.view("f8")),
    "subclass": lambda array: Box(array.view(Tagged)[3:]),
    "ndarray in it": lambda array: Box(np.ndarray((2, 4), "f4", array, 32)),
    "memoryview": lambda array: Box(memoryview(array)[2:]),
    "frombuffer": lambda array: Box(np.frombuffer(array, "i2")),
    "closure": lambda array: Box(lambda: array[0]),
    "iterator": lambda array: Box(iter(array[5:])),
    "cycle": lambda array: Cycle(array[1:]),
    "thread": lambda array: Held(array[1:]),
}


def holders(*names):
    """Return leases, and holders of one of them."""
    leases = Leases()
    array = leases.lend(bytearray(256), 64, 64, "record")
    return leases, [WAYS[name](array) for name in names]


@pytest.mark.parametrize("name", WAYS)
def test_a_record_is_held_by_whatever_refers_to_its_memory(name):
    leases, (holder,) = holders(name)
    assert not leases.ended
    holder.drop()
    assert leases.take_ended() == ["record"]


def test_a_record_is_released_once_with_the_last_of_its_views_in_any_order():
    for order in itertools.permutations(["array", "slice", "other dtype", "closure", "thread"]):
        leases, left = holders(*order)
        for holder in left:
            assert not leases.ended
            holder.drop()
        assert leases.take_ended() == ["record"]


def test_leases_end_in_any_order():
    leases, memory = Leases(), bytearray(10)
    arrays = {i: leases.lend(memory, i, 1, i) for i in range(10)}
    order = [3, 0, 9, 5, 1, 2, 8, 7, 6, 4]
    for i in order:
        del arrays[i]
    assert leases.take_ended() == order
    assert leases.take_ended() == []


def test_a_leased_array_is_a_view_of_the_memory():
    memory = bytearray(64)
    array = Leases().lend(memory, 0, 64, None)
    assert array.flags.writeable
    array[3] = 7
    assert memory[3] == 7


def test_a_lease_keeps_the_mapping():
    array = Leases().lend(bytearray(range(100)), 0, 100, None)[50:]
    gc.collect()
    assert array[0] == 50


# Forks


def mapped_twice():
    """Return the memory of a segment as a consumer has it, and as its worker does."""
    fd, there = shared_memory.create(1 << 16, "")
    here = shared_memory.adopt(fd, 1 << 16)
    os.close(fd)
    return here, there


def test_what_ends_while_a_fork_is_under_way_is_told_when_the_child_has_its_own(monkeypatch):
    """The child is held up, in which time its parent drops the array."""
    here, there = mapped_twice()
    leases = Leases()
    array = leases.lend(here.base, 64, 64, "record")
    array[:] = 7
    reading, writing = os.pipe()
    make_private = leases_module._make_private

    def held_up():
        os.close(writing)
        os.read(reading, 1)
        make_private()

    monkeypatch.setattr(leases_module, "_make_private", held_up)
    children, views = [], [array]
    del array
    forking = threading.Thread(target=lambda: children.append(Child(lambda wait: views[0].tolist())))
    waiting = threading.Event()
    wait_for_child = leases_module._wait_for_child

    def wait(*pipe):
        waiting.set()
        wait_for_child(*pipe)

    monkeypatch.setattr(leases_module, "_wait_for_child", wait)
    forking.start()
    waiting.wait()
    views.clear()
    assert leases.take_ended() == []
    assert forking.is_alive()
    os.close(writing)
    os.close(reading)
    forking.join()
    assert leases.take_ended() == ["record"]
    there[:] = 9  # as a worker does with what was given back
    assert children[0].result() == [7] * 64


def test_a_child_that_dies_before_it_has_its_own_holds_nothing_up(monkeypatch):
    array = Leases().lend(mapped_twice()[0].base, 0, 64, "record")
    monkeypatch.setattr(leases_module, "_make_private", lambda: os._exit(3))
    assert Child(lambda wait: None).exit_code() == 3
    assert len(array) == 64


def test_where_nothing_is_leased_a_fork_makes_no_pipe(monkeypatch):
    leases = Leases()
    leases.lend(mapped_twice()[0].base, 0, 64, "record")
    assert leases.take_ended() == ["record"]
    monkeypatch.setattr(os, "pipe", None)
    leases_module._before()
    assert leases_module._forks == [None]
    leases_module._after_in_parent()


def test_without_a_descriptor_for_a_pipe_a_child_has_its_own_all_the_same(monkeypatch):
    here, there = mapped_twice()
    array = Leases().lend(here.base, 0, 64, "record")
    array[:] = 7

    def none_left():
        raise OSError(24, "Too many open files")

    child = Child(
        lambda wait: (wait(), array.max())[1], before=lambda: monkeypatch.setattr(os, "pipe", none_left)
    )
    monkeypatch.undo()
    assert child.started() == b"s"
    there[:] = 9
    child.go()
    assert child.result() == 7


def test_leases_are_known_until_the_last_one_ends_though_they_are_closed():
    before = set(leases_module._all)
    leases = Leases()
    array = leases.lend(mapped_twice()[0].base, 0, 64, "record")
    leases.close()
    assert set(leases_module._all) - before == {leases}
    del array
    other = Leases()
    other.close()
    assert set(leases_module._all) <= before
