"""The socket of the zmq backend, and the frames that go through it."""

import random
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import numpy as np
import psutil
import pytest

from pescador import ParallelStreamer, PescadorError, Streamer, WorkerError, ZMQStreamer
from pescador.backends.protocol.connection import Connection
from pescador.backends.protocol.messages import Extent
from pescador.backends.system.shared_memory import ALIGNMENT
from pescador.backends.zmq import backend, frames
from pescador.backends.zmq import sender as zmq_sender

from ...kinds import PATIENCE


def arrays(n, size=100):
    for i in range(n):
        yield {"i": i, "x": np.full(size, i)}


def listening():
    """Return the addresses on which this process listens."""
    process = psutil.Process()
    connections = getattr(process, "net_connections", None) or process.connections  # its name before psutil 6
    return [tuple(found.laddr) for found in connections("tcp") if found.status == psutil.CONN_LISTEN]


def test_it_listens_on_the_loopback_interface_only():
    before = len(listening())
    with ParallelStreamer(Streamer(arrays, 10), "zmq", min_port=50_000, max_port=60_000) as stream:
        next(iter(stream))
        addresses = listening()
        assert len(addresses) == before + 1
        assert {host for host, _ in addresses} == {"127.0.0.1"}
        assert 50_000 <= addresses[-1][1] <= 60_000


def loaded(names):
    yield [name for name in names if name in sys.modules]


def test_a_worker_does_not_import_what_takes_as_long_as_its_own_modules():
    with ParallelStreamer(Streamer(loaded, ["zmq", "asyncio", "ssl"]), "zmq") as stream:
        assert list(stream) == [["zmq"]]


def test_without_pyzmq_the_error_says_so_when_the_stream_is_made():
    script = """
import sys
sys.modules["zmq"] = None  # as if it were not there
from pescador import ParallelStreamer, PescadorError, Streamer
try:
    ParallelStreamer(Streamer(range, 3), "zmq")
except PescadorError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "needs 'zmq'" in output
    assert "pip install" in output


@contextmanager
def occupied_port():
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_no_free_port_is_an_error_that_names_the_range_and_the_options():
    with occupied_port() as port:
        stream = ZMQStreamer(Streamer(arrays, 3), min_port=port, max_port=port, max_tries=3)
        with pytest.raises(
            PescadorError, match=rf"no free port from {port} to {port} in 3 tries.*min_port.*max_tries"
        ):
            list(stream)


def test_a_range_of_one_free_port_is_enough():
    with occupied_port() as port:
        pass
    with ZMQStreamer(Streamer(arrays, 3), min_port=port, max_port=port) as stream:
        assert len(list(stream)) == 3
        assert listening() == [("127.0.0.1", port)]


def test_ports_are_not_drawn_from_the_global_random_state():
    before = random.getstate()
    with ZMQStreamer(Streamer(arrays, 3), min_port=50_000, max_port=60_000) as stream:
        list(stream)
    assert random.getstate() == before


@pytest.mark.parametrize(
    "options",
    [
        {"min_port": 0},
        {"min_port": 2000, "max_port": 1999},
        {"max_port": 65_536},
        {"max_tries": 0},
    ],
    ids=str,
)
def test_bad_ports_are_refused_when_the_stream_is_made(options):
    with pytest.raises(PescadorError, match=r"port|max_tries"):
        ZMQStreamer(Streamer(arrays, 3), **options)


@pytest.mark.parametrize("copy", [False, True])
def test_copy_makes_no_difference_to_items(copy):
    with ZMQStreamer(Streamer(arrays, 20, 20_000), copy=copy) as stream:
        items = list(stream)
    for i, item in enumerate(items):
        assert (item["x"] == i).all()
        assert item["x"].flags.writeable
        assert item["x"].flags.aligned


# Frames

F = frames.FRAME_BYTES


@contextmanager
def halves():
    """Return a sender and a receiver."""
    here, there = Connection.pair()
    with closing(here), closing(there):
        # Without a copy, ZeroMQ would start a thread in this process that lasts.
        make_sender, make_receiver = backend.ZMQBackend(copy=True).transport(here)
        with closing(make_receiver(here, None)) as receiver, closing(make_sender(there)) as sender:
            yield sender, receiver


def received(receiver):
    """Return the next message, when its records are there, too."""
    while True:
        assert receiver.wait(PATIENCE * 1000)
        if found := receiver.receive():
            return found[0]


@pytest.mark.parametrize("n_bytes", [1, F - 1, F, F + 1, 2 * F, 5 * F + 100])
def test_messages_and_records_of_any_size_arrive_as_they_were(n_bytes):
    data = np.random.default_rng(0).integers(256, size=n_bytes, dtype=np.uint8)
    with halves() as (sender, receiver):
        for n_records in (0, 1, 3):
            extents = []
            for i in range(n_records):
                record = sender.allocate_apart(n_bytes)
                record.memory[:] = data + i
                extents.append(record.extent)
            sender.send([data.tobytes()], extents)
            assert received(receiver) == data.tobytes()
            for i, extent in reversed(list(enumerate(extents))):
                array = receiver.view(extent)
                assert (array == data + i).all()
                assert array.ctypes.data % ALIGNMENT == 0
            released = receiver.take_released()
            assert released == extents[::-1]
            sender.free(released)
        assert not receiver.wait(0)


@pytest.mark.parametrize(
    "lie",
    [Extent(1, 0, 5), Extent(1, 0, F + 2), Extent(2, 0, F + 1), Extent(9, 0, 2**62), Extent(1, 0, 2**62)],
)
def test_a_record_that_is_not_there_is_an_error(lie):
    with halves() as (sender, receiver):
        extent = sender.allocate(F + 1).extent
        sender.send([b"I"], [extent])
        received(receiver)
        with pytest.raises(WorkerError, match="a worker sent"):
            receiver.view(lie)


def test_records_that_nobody_wants_are_dropped():
    with halves() as (sender, receiver):
        for number in (1, 2):
            extent = sender.allocate(3 * F).extent
            assert extent.segment == number
            sender.send([b"I"], [extent])
            received(receiver)
            receiver.release(extent)
            assert not receiver._records
            assert receiver.take_released() == [extent]


def test_a_record_that_was_never_sent_is_not_waited_for():
    with halves() as (sender, receiver):
        sender.allocate(F)
        record = sender.allocate(50_000)
        record.memory[:] = 7
        sender.send([b"I"], [record.extent])
        received(receiver)
        assert (receiver.view(record.extent) == 7).all()


def test_memory_of_records_is_used_again_when_the_consumer_has_them():
    with halves() as (sender, receiver):
        places = set()
        for i in range(5):
            record = sender.allocate(50_000)
            record.memory[:] = i
            places.add(record.memory.ctypes.data)
            sender.send([b"I"], [record.extent])
            received(receiver)
            assert (receiver.view(record.extent) == i).all()
            sender.free(receiver.take_released())
        assert len(places) == 1


def test_memory_that_is_kept_for_other_sizes_is_bounded():
    with halves() as (sender, _):
        for n_bytes in range(1 << 20, (1 << 20) + 100):
            sender.free([sender.allocate(n_bytes).extent])
            assert sender._n_bytes <= frames.BUDGET


def test_memory_that_went_beyond_the_bound_is_not_kept():
    with halves() as (sender, _):
        records = [sender.allocate_apart(frames.BUDGET // 2) for _ in range(5)]
        sender.free([record.extent for record in records])
        assert sender._n_bytes <= frames.BUDGET
        sender.free([sender.allocate_apart(3 * frames.BUDGET).extent])
        assert sender._n_bytes <= frames.BUDGET
        assert sender._under_way == 0


# A connection that cannot be


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_worker_that_cannot_connect_ends_with_words_that_help(is_busy, monkeypatch):
    """But not one whose consumer has no time to answer."""
    ended = threading.Event()
    monkeypatch.setattr(zmq_sender, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(zmq_sender, "exit_now", lambda code: ended.set())
    here, there = Connection.pair()
    with closing(here), closing(there), closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        if is_busy:
            listener.listen()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with closing(zmq_sender.ZMQSender(there, address, b"secret", copy=True)):
            if is_busy:
                assert not ended.wait(1.5)
                assert here.receive(block=False) is None
            else:
                assert ended.wait(PATIENCE)
                words = here.receive()[0].decode()
                assert all(
                    part in words for part in (address, "loopback", "ip link set lo up", "backend='shm'")
                )
