"""Places in a ring, and the leases on them."""

import gc
import itertools
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pescador.backends.ring import ALIGNMENT, Allocator, Leases
from pescador.testing import Tagged


class AllocatorAgainstModel(RuleBasedStateMachine):
    """The model is a row of units of 64 bytes, each free or occupied."""

    @initialize(n_units=st.integers(1, 40), rest=st.integers(0, ALIGNMENT - 1))
    def make(self, n_units, rest):
        self.n_bytes = n_units * ALIGNMENT + rest
        self.allocator = Allocator(self.n_bytes)
        self.units = [False] * n_units
        self.held = {}

    @rule(n_bytes=st.integers(0, 12 * ALIGNMENT))
    def allocate(self, n_bytes):
        n_units = max(1, -(-n_bytes // ALIGNMENT))
        runs = [len(list(run)) for occupied, run in itertools.groupby(self.units) if not occupied]
        offset = self.allocator.allocate(n_bytes)
        if offset is None:
            assert max(runs, default=0) < n_units, "there was a place"
            return
        assert offset % ALIGNMENT == 0
        first = offset // ALIGNMENT
        assert 0 <= first <= first + n_units <= len(self.units), "out of bounds"
        assert not any(self.units[first : first + n_units]), "overlap"
        self.units[first : first + n_units] = [True] * n_units
        self.held[offset] = n_units

    @rule(data=st.data())
    def free(self, data):
        if self.held:
            self.give_back(data.draw(st.sampled_from(sorted(self.held))))

    @rule()
    def free_all(self):
        for offset in list(self.held):
            self.give_back(offset)
        whole = len(self.units) * ALIGNMENT
        offset = self.allocator.allocate(whole)
        assert offset == 0
        self.allocator.free(offset)

    def give_back(self, offset):
        self.allocator.free(offset)
        n_units = self.held.pop(offset)
        first = offset // ALIGNMENT
        self.units[first : first + n_units] = [False] * n_units

    @invariant()
    def it_knows_how_many_places_are_occupied(self):
        if hasattr(self, "allocator"):
            assert len(self.allocator) == len(self.held)


TestAllocatorAgainstModel = AllocatorAgainstModel.TestCase
TestAllocatorAgainstModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_places_follow_each_other_in_a_circle():
    allocator = Allocator(4 * ALIGNMENT)
    assert [allocator.allocate(ALIGNMENT) for _ in range(5)] == [0, 64, 128, 192, None]
    allocator.free(0)
    allocator.free(64)
    assert allocator.allocate(100) == 0
    allocator.free(192)
    assert allocator.allocate(1) == 192


def test_what_is_held_longer_is_stepped_over():
    allocator = Allocator(4 * ALIGNMENT)
    held, *others = [allocator.allocate(1) for _ in range(3)]
    for offset in others:
        allocator.free(offset)
    for _ in range(10):
        offset = allocator.allocate(ALIGNMENT)
        assert offset not in (None, held)
        allocator.free(offset)


def test_a_place_is_given_back_once():
    allocator = Allocator(4 * ALIGNMENT)
    allocator.free(allocator.allocate(1))
    with pytest.raises(KeyError):
        allocator.free(0)


def test_a_ring_without_memory_has_no_place():
    assert Allocator(0).allocate(1) is None
    assert Allocator(63).allocate(1) is None


# Leases


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
