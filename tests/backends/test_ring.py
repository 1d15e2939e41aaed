"""Places in a ring, and the leases on them."""

import gc
import itertools
import os
import pickle
import threading
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pescador import PescadorError
from pescador.backends import segment, shm, wire
from pescador.backends.link import Link
from pescador.backends.ring import ALIGNMENT, Allocator, Leases
from pescador.backends.wire import NOWHERE, Extent
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
    """Return a queue of released records, and holders of one lease."""
    released = deque()
    array = Leases(np.zeros(256, np.uint8), released)(64, 64, "record")
    return released, [WAYS[name](array) for name in names]


@pytest.mark.parametrize("name", WAYS)
def test_a_record_is_held_by_whatever_refers_to_its_memory(name):
    released, (holder,) = holders(name)
    assert not released
    holder.drop()
    assert list(released) == ["record"]


def test_a_record_is_released_once_with_the_last_of_its_views_in_any_order():
    for order in itertools.permutations(["array", "slice", "other dtype", "closure", "thread"]):
        released, left = holders(*order)
        for holder in left:
            assert not released
            holder.drop()
        assert list(released) == ["record"]


def test_leases_end_in_any_order():
    released = deque()
    lend = Leases(np.zeros(10, np.uint8), released)
    arrays = {i: lend(i, 1, i) for i in range(10)}
    order = [3, 0, 9, 5, 1, 2, 8, 7, 6, 4]
    for i in order:
        del arrays[i]
    assert list(released) == order


def test_a_leased_array_is_a_view_of_the_memory():
    memory, released = np.zeros(64, np.uint8), deque()
    array = Leases(memory, released)(0, 64, None)
    assert np.shares_memory(array, memory)
    assert array.flags.writeable
    array[3] = 7
    assert memory[3] == 7


def test_a_lease_keeps_the_mapping():
    released = deque()
    array = Leases(np.arange(100, dtype=np.uint8), released)(0, 100, None)[50:]
    gc.collect()
    assert array[0] == 50


# Both halves


class Halves:
    """A sender and a receiver in one process, and what passes between them."""

    def __init__(self, ring_bytes):
        links = Link.pair()
        self.links = links
        self.sender = shm.RingSender(links[0], ring_bytes)
        self.receiver = shm.RingReceiver(links[1], None)
        self.sender.prepare()

    def send(self, number, extent):
        assert self.sender.try_send(wire.ITEMS + pickle.dumps((number, extent)), [extent])

    def receive(self):
        """Yield what was sent."""
        while (received := self.receiver.receive()) is not None:
            message, descriptors = received
            kind, content = message[:1], pickle.loads(message[1:])
            if kind == wire.SEGMENT:
                self.receiver.adopt(content, descriptors.pop())
            elif kind == wire.NO_SEGMENT:
                self.receiver.drop(content)
            else:
                yield content

    def return_released(self):
        while extents := self.receiver.take_released():
            self.sender.free(extents)

    def close(self):
        self.receiver.close()
        self.sender.close()
        for link in self.links:
            link.close()


RECORD = 1024  # bytes


class RingAgainstList(RuleBasedStateMachine):
    """Items go through a ring of four records. The model is the list of those that were sent."""

    def __init__(self):
        super().__init__()
        self.halves = None
        self.numbers = itertools.count()
        self.sent = []  # number and bytes of each item that is under way
        self.arrived = []  # number and place of those that were received
        self.held = []  # arrays, and what must be in them
        self.born = []  # arrays of the generator that were not sent

    @initialize()
    def make(self):
        self.halves = Halves(4 * RECORD)

    def content(self, n_bytes):
        number = next(self.numbers)
        return number, np.random.default_rng(number).integers(256, size=n_bytes, dtype=np.uint8)

    @rule(n_bytes=st.integers(1, RECORD), waits=st.booleans())
    def produce(self, n_bytes, waits):
        """Send an item if there is room; there always is when the consumer waits as well."""
        place = self.halves.sender.allocate(n_bytes, must=waits)
        if place is None:
            assert not waits
            return
        self.send(n_bytes, *place)

    @rule(n_bytes=st.integers(4 * RECORD + 1, 20 * RECORD))
    def produce_oversize(self, n_bytes):
        self.send(n_bytes, *self.halves.sender.allocate(n_bytes, must=False))

    def send(self, n_bytes, extent, memory):
        number, content = self.content(n_bytes)
        assert len(memory) == n_bytes
        memory[:] = content
        self.halves.send(number, extent)
        self.sent.append((number, content))

    @rule(n_bytes=st.integers(1, RECORD))
    def make_in_place(self, n_bytes):
        memory = self.halves.sender.allocate_array(n_bytes)
        if memory is not None:
            _, content = self.content(n_bytes)
            memory[:] = content
            self.born.append((memory, content))

    @rule(data=st.data(), keeps=st.booleans())
    def give(self, data, keeps):
        """Send an array that was made in place; the generator may keep it."""
        if not self.born:
            return
        i = data.draw(st.integers(0, len(self.born) - 1))
        memory, content = self.born[i]
        extent = self.halves.sender.give(memory)
        if extent is NOWHERE:  # it was given already
            return
        number = next(self.numbers)
        self.halves.send(number, extent)
        self.sent.append((number, content))
        del memory
        if not keeps:
            del self.born[i]

    @rule(data=st.data())
    def forget(self, data):
        """Drop an array that was made in place."""
        if self.born:
            del self.born[data.draw(st.integers(0, len(self.born) - 1))]

    @rule()
    def receive(self):
        self.arrived += self.halves.receive()

    @rule(hold=st.booleans())
    def consume(self, hold):
        self.receive()
        if not self.sent:
            assert not self.arrived
            return
        number, content = self.sent.pop(0)
        arrived, extent = self.arrived.pop(0)
        assert arrived == number
        array = self.halves.receiver.view(extent)
        assert array.flags.writeable
        assert (array == content).all()
        if hold:
            self.held.append((array, content.copy()))

    @rule()
    def discard(self):
        """Give back an item that nobody wants."""
        if self.arrived:
            number, extent = self.arrived.pop(0)
            assert self.sent.pop(0)[0] == number
            self.halves.receiver.release(extent)

    @rule(data=st.data())
    def keep_a_slice(self, data):
        if self.held:
            i = data.draw(st.integers(0, len(self.held) - 1))
            array, content = self.held[i]
            start = data.draw(st.integers(0, len(content) - 1))
            self.held[i] = array[start:], content[start:]

    @rule(data=st.data())
    def write(self, data):
        """What a consumer writes into an item nobody else sees."""
        if self.held:
            array, content = self.held[data.draw(st.integers(0, len(self.held) - 1))]
            array[:] = content[:] = data.draw(st.integers(0, 255))

    @rule(data=st.data())
    def release(self, data):
        if self.held:
            del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @rule()
    def return_released(self):
        self.halves.return_released()

    @invariant()
    def what_is_held_is_as_it_was(self):
        for array, content in self.held:
            assert (array == content).all()

    @invariant()
    def the_ring_does_not_grow(self):
        if self.halves is not None:
            assert [len(ring) for ring in self.halves.receiver._rings.values()] in ([], [4 * RECORD])

    def teardown(self):
        """In the end all is free again, or the ends are closed while items are under way and held."""
        if self.halves is None:
            return
        if len(self.held) % 2:  # closed at any moment
            self.halves.close()
            self.what_is_held_is_as_it_was()
            self.held.clear()
            self.born.clear()
            return
        while self.sent:
            self.consume(hold=False)
        self.held.clear()
        self.born.clear()
        self.halves.return_released()
        extent, memory = self.halves.sender.allocate(4 * RECORD, must=False)
        assert extent.segment == 1, "something is still occupied"
        assert len(memory) == 4 * RECORD
        self.halves.close()


TestRingAgainstList = RingAgainstList.TestCase
TestRingAgainstList.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


# What a worker never says

HUGE = st.integers(0, 2**64 - 1) | st.integers(0, 8 * RECORD)


@given(st.lists(st.tuples(st.integers(0, 3), HUGE, HUGE), min_size=1, max_size=5))
def test_a_record_that_cannot_be_is_refused(lies):
    """No place outside of the ring is looked at, and no memory is taken for what is not there."""
    halves = Halves(4 * RECORD)
    try:
        list(halves.receive())
        for lie in lies:
            segment, offset, n_bytes = lie
            if segment == 1 and offset + n_bytes <= 4 * RECORD and offset % ALIGNMENT == 0:
                assert len(halves.receiver.view(Extent(*lie))) == n_bytes
            else:
                with pytest.raises(PescadorError, match="nowhere"):
                    halves.receiver.view(Extent(*lie))
    finally:
        halves.close()


@pytest.mark.parametrize("n_bytes", [4096 * 3, 2**40, 2**62])
def test_a_segment_that_is_not_as_large_as_announced_is_refused(n_bytes):
    fd, _ = segment.create(4096, "")
    halves = Halves(4 * RECORD)
    try:
        with pytest.raises(PescadorError, match="cannot map"):
            halves.receiver.adopt((7, n_bytes, True), os.dup(fd))
    finally:
        halves.close()
        os.close(fd)
