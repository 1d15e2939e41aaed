"""The socket of the zmq backend, and strangers that connect to it."""

import pickle
import random
import socket
from contextlib import closing, contextmanager

import numpy as np
import psutil
import pytest
import zmq

from pescador import ParallelStreamer, PescadorError, Streamer, ZMQStreamer
from pescador.backends import zmq as backend
from pescador.backends.link import Link


def arrays(n, size=100):
    for i in range(n):
        yield {"i": i, "x": np.full(size, i)}


class Bomb:
    """Raises where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("what a stranger sent was unpickled",)


ATTACKS = {
    "garbage": [b"\0garbage\xff" * 100],
    "an empty frame": [b""],
    "many frames": [b"I", b"a", b"b"],
    "a guess at the secret": [bytes(32)],
    "a secret that is too long": [bytes(33)],
    "a message": [b"I" + bytes(100)],
    "a pickle": [b"S" + pickle.dumps(Bomb())],
    "a segment": [b"M" + pickle.dumps(Bomb())],
    "last words": [b"Xthis is the end"],
    "much": [bytes(1 << 20)],
}


@contextmanager
def stranger(address):
    """Give a socket that is connected to an address; what it sends is sent before this ends."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 10_000  # milliseconds
        dealer.connect(address)
        yield dealer


def listening():
    """Return the addresses on which this process listens."""
    process = psutil.Process()
    connections = getattr(process, "net_connections", None) or process.connections  # its name before psutil 6
    return [found.laddr for found in connections("tcp") if found.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("frames", ATTACKS.values(), ids=ATTACKS)
def test_a_stranger_that_connects_first_is_ignored(frames, monkeypatch):
    """The stranger's messages are in the socket before the worker knows the address."""

    def transport(self, link, process):
        sender, options, make_receiver = transport.original(self, link, process)
        socket = make_receiver.args[1]
        with stranger(options["address"]) as dealer:
            for _ in range(3):
                dealer.send_multipart(frames)
            assert socket.poll(10_000)  # it is here
        return sender, options, make_receiver

    transport.original = backend.ZMQBackend.transport
    monkeypatch.setattr(backend.ZMQBackend, "transport", transport)
    with ParallelStreamer(Streamer(arrays, 50), "zmq") as stream:
        assert [item["i"] for item in stream] == list(range(50))
        assert next(iter(stream))["x"].shape == (100,)


@pytest.mark.parametrize("frames", ATTACKS.values(), ids=ATTACKS)
def test_a_stranger_that_connects_later_is_ignored(frames):
    with ParallelStreamer(Streamer(arrays, 500), "zmq", prefetch=4) as stream:
        items = stream.iterate()
        assert next(items)["i"] == 0
        (address,) = listening()
        with stranger(f"tcp://{address.ip}:{address.port}") as dealer:
            for i in range(1, 500):
                dealer.send_multipart(frames)
                assert next(items)["i"] == i
        assert next(items, None) is None


def test_the_secret_of_the_worker_does_not_let_a_second_one_in(monkeypatch):
    """Once the worker is known, nobody else becomes it, whatever he sends."""
    known = []

    def transport(self, link, process):
        sender, options, make_receiver = transport.original(self, link, process)
        known.append(options)
        return sender, options, make_receiver

    transport.original = backend.ZMQBackend.transport
    monkeypatch.setattr(backend.ZMQBackend, "transport", transport)
    with ParallelStreamer(Streamer(arrays, 100), "zmq", prefetch=4) as stream:
        items = stream.iterate()
        assert next(items)["i"] == 0
        with stranger(known[0]["address"]) as dealer:
            dealer.send(known[0]["secret"])
            for i in range(1, 100):
                dealer.send(b"S" + pickle.dumps(Bomb()))
                assert next(items)["i"] == i


def test_every_worker_has_a_secret_of_its_own():
    here, there = Link.pair()
    with closing(here), closing(there):
        secrets = set()
        for _ in range(3):
            _, options, make_receiver = backend.ZMQBackend().transport(here, None)
            secrets.add(options["secret"])
            make_receiver(here, None).close()
    assert len(secrets) == 3
    assert all(len(secret) == 32 for secret in secrets)


def test_it_listens_on_the_loopback_interface_only():
    before = len(listening())
    with ParallelStreamer(Streamer(arrays, 10), "zmq", min_port=50_000, max_port=60_000) as stream:
        next(iter(stream))
        addresses = listening()
        assert len(addresses) == before + 1
        assert {address.ip for address in addresses} == {"127.0.0.1"}
        assert 50_000 <= addresses[-1].port <= 60_000


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
        assert [address.port for address in listening()] == [port]


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
