"""Places in a ring."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pescador.backends.shm.ring import Allocator
from pescador.backends.system.shared_memory import ALIGNMENT


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
