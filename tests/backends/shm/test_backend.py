"""Both halves of the shm backend: arrays that go through the ring, and lies about them."""

import contextlib
import itertools
import os
import pickle
import platform
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import pescador
from pescador import ParallelStreamer, PescadorError, Streamer
from pescador.backends.protocol import messages
from pescador.backends.protocol.connection import Connection
from pescador.backends.protocol.messages import NOWHERE, Extent
from pescador.backends.shm.receiver import RingReceiver
from pescador.backends.shm.sender import RingSender
from pescador.backends.system import shared_memory
from pescador.backends.system.shared_memory import ALIGNMENT, close_all
from pescador.backends.worker.process_loop import ProcessLoop
from pescador.memory import allocate_with
from pescador.seeding import Seed


class Halves:
    """A sender and a receiver in one process, and what passes between them."""

    def __init__(self, ring_bytes):
        connections = Connection.pair()
        self.connections = connections
        self.sender = RingSender(connections[0], ring_bytes)
        self.receiver = RingReceiver(connections[1], None)
        self.sender.prepare()

    def send(self, number, extent):
        self.sender.send([messages.ITEMS, pickle.dumps((number, extent))], [extent])

    def receive(self):
        """Yield what was sent."""
        while (received := self.receiver.receive()) is not None:
            message, descriptors = received
            if message[:1] == messages.ITEMS:
                yield pickle.loads(message[1:])
            else:
                self.receiver.obey(message, descriptors)
                close_all(descriptors)

    def return_released(self):
        while extents := self.receiver.take_released():
            self.sender.free(extents)

    def close(self):
        self.receiver.close()
        self.sender.close()
        for connection in self.connections:
            connection.close()


RECORD = 1024  # bytes


def index(entries):
    """Any place in a list that is not empty."""
    return st.integers(0, len(entries) - 1)


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
        is_room = self.halves.sender.has_room_for([Extent(1, 0, n_bytes)])
        record = self.halves.sender.allocate(n_bytes)
        assert (record is not None) == is_room
        if record is None and waits:
            record = self.halves.sender.allocate_apart(n_bytes)
        if record is not None:
            self.send(n_bytes, record)

    @rule(n_bytes=st.integers(4 * RECORD + 1, 20 * RECORD))
    def produce_oversize(self, n_bytes):
        self.send(n_bytes, self.halves.sender.allocate(n_bytes))

    def send(self, n_bytes, record):
        number, content = self.content(n_bytes)
        assert len(record.memory) == n_bytes
        record.memory[:] = content
        self.halves.send(number, record.extent)
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
        i = data.draw(index(self.born))
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
            del self.born[data.draw(index(self.born))]

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
            i = data.draw(index(self.held))
            array, content = self.held[i]
            start = data.draw(index(content))
            self.held[i] = array[start:], content[start:]

    @rule(data=st.data())
    def write(self, data):
        """What a consumer writes into an item nobody else sees."""
        if self.held:
            array, content = self.held[data.draw(index(self.held))]
            array[:] = content[:] = data.draw(st.integers(0, 255))

    @rule(data=st.data())
    def release(self, data):
        if self.held:
            del self.held[data.draw(index(self.held))]

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
        record = self.halves.sender.allocate(4 * RECORD)
        assert record.extent.segment == 1, "something is still occupied"
        assert len(record.memory) == 4 * RECORD
        self.halves.close()


TestRingAgainstList = RingAgainstList.TestCase
TestRingAgainstList.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_a_ring_that_cannot_be_replaced_goes_on(monkeypatch):
    with contextlib.closing(Halves(None)) as halves:
        sender = halves.sender
        lent = [sender.allocate(1 << 20) for _ in range(3)]

        def none_left(n_bytes, remedy):
            raise PescadorError("there is not enough shared memory")

        with monkeypatch.context() as patched:
            patched.setattr(shared_memory, "create", none_left)
            assert sender.allocate(8 << 20).extent.segment == 1  # the ring would grow for such items
        sender.free([record.extent for record in lent])
        assert sender.allocate(1 << 20) is lent[-1]


def test_both_sides_may_announce_more_than_a_socket_holds():
    here, there = Connection.pair()
    with contextlib.closing(here), contextlib.closing(there):
        n = sent = 0
        while not there.has_unsent:
            there.send(b"command")
            n += 1
        while not here.has_unsent:
            here.send(b"message")
            sent += 1
        reader = threading.Thread(target=lambda: [there.receive() for _ in range(sent + 1)])
        # Its messages are read only once there is room for one more command.
        writer = threading.Thread(target=lambda: (there.send_reading(b"last command"), reader.start()))
        writer.start()
        here.send_reading(b"announcement")
        assert [here.receive()[0] for _ in range(n + 1)] == [b"command"] * n + [b"last command"]
        writer.join()
        reader.join()
        assert here.receive(block=False) is None


# Arrays that are made in place


class Loop(ProcessLoop):
    """Takes the next command only when nothing is left to do, or what there is has to wait."""

    def __init__(self, halves, commands):
        super().__init__(halves.connections[0], halves.sender)
        self.coming = commands

    def next_command(self, block):
        return next(self.coming) if block else None

    def load(self, recipe):
        return recipe


@pytest.mark.parametrize("n_arrays", [1, 2])
def test_no_item_is_begun_for_whose_arrays_there_is_no_room(n_arrays):
    """They would have to be copied, so only an item that the consumer waits for is made elsewhere."""
    in_place = []  # whether the arrays of each item are
    shape = (1 << 16) // n_arrays

    def make():
        item = {str(i): pescador.empty(shape, np.uint8) for i in range(n_arrays)}
        in_place.append(all(array.base is not None for array in item.values()))
        return item

    def source():
        while True:
            yield make()

    def sent():
        """Yield the records of each item that was sent."""
        while (received := halves.receiver.receive()) is not None:
            message, descriptors = received
            close_all(descriptors)
            if message[:1] == messages.ITEMS:
                for _, _, bodies, _ in messages.unpack_items(memoryview(message))[-1]:
                    yield from (messages.unpack_table(body)[0] for body in bodies)

    def commands():
        yield "open", 1, Streamer(source), Seed(0), None, 9
        assert in_place == [True] * 4
        first, *_ = sent()
        yield "free", messages.pack_extents(first)
        assert in_place == [True] * 5
        yield "want", 1, loop._n_sent
        assert in_place[:5] == [True] * 5
        assert set(in_place[5:]) == {False}
        assert loop.copied == len(in_place[5:]) << 16
        yield ("stop",)

    with contextlib.closing(Halves(4 << 16)) as halves:
        loop = Loop(halves, commands())
        loop.probe()
        allocate_with(loop.allocate_array)
        try:
            loop.run()
        finally:
            allocate_with(None)


# What a worker never says

HUGE = st.integers(0, 2**64 - 1) | st.integers(0, 8 * RECORD)


@given(st.lists(st.tuples(st.integers(0, 3), HUGE, HUGE), min_size=1, max_size=5))
def test_a_record_that_cannot_be_is_refused(lies):
    """No place outside of the ring is looked at, and no memory is taken for what is not there."""
    with contextlib.closing(Halves(4 * RECORD)) as halves:
        list(halves.receive())
        for lie in lies:
            segment, offset, n_bytes = lie
            if segment == 1 and offset + n_bytes <= 4 * RECORD and offset % ALIGNMENT == 0:
                assert len(halves.receiver.view(Extent(*lie))) == n_bytes
            else:
                with pytest.raises(PescadorError, match="nowhere"):
                    halves.receiver.view(Extent(*lie))


@pytest.mark.parametrize("n_bytes", [4096 * 3, 2**40, 2**62])
def test_a_segment_that_is_not_as_large_as_announced_is_refused(n_bytes):
    fd, _ = shared_memory.create(4096, "")
    try:
        with (
            contextlib.closing(Halves(4 * RECORD)) as halves,
            pytest.raises(PescadorError, match="cannot map"),
        ):
            halves.receiver.obey(messages.SEGMENT + pickle.dumps((7, n_bytes, True)), [fd])
    finally:
        os.close(fd)


def minor_faults():
    """Yield how many pages the system had to give while an item was made of 3 MB in small arrays."""
    import resource

    while True:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        arrays = [np.ones(300_000, np.uint8) for _ in range(10)]
        del arrays
        yield resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about its malloc")
@pytest.mark.parametrize("start_method", [None, "spawn"])
def test_memory_that_a_generator_has_freed_is_used_for_its_next_item(start_method):
    with ParallelStreamer(Streamer(minor_faults), start_method=start_method) as stream:
        assert min(stream(max_iter=20)) < 100  # of 730 if each item gets new memory
