"""Strangers that connect to the socket of the zmq backend: whatever they send, nothing comes of it."""

import pickle
import random
import socket
import struct
import threading
from contextlib import closing, contextmanager, suppress
from functools import partial

import psutil
import pytest
import zmq

from pescador import ParallelStreamer, Streamer
from pescador.backends.protocol.connection import Connection
from pescador.backends.zmq import backend
from pescador.backends.zmq import listening as zmq_listening
from pescador.backends.zmq.frames import FRAME_BYTES

from ...kinds import PATIENCE
from .test_backend import arrays, listening


class Bomb:
    """Raises where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("what a stranger sent was unpickled",)


@contextmanager
def before_the_worker(monkeypatch, act):
    """Have `act`, a context manager, entered with each address before the worker knows it."""

    def transport(self, connection):
        made = original(self, connection)
        entered.append(act(made.make_sender.keywords["address"]))
        entered[-1].__enter__()
        return made

    entered = []
    original = backend.ZMQBackend.transport
    monkeypatch.setattr(backend.ZMQBackend, "transport", transport)
    yield
    assert entered
    for manager in entered:
        manager.__exit__(None, None, None)


# Strangers that speak ZeroMQ

ATTACKS = {
    "garbage": [b"\0garbage\xff" * 100],
    "an empty frame": [b""],
    "many frames": [b"I", b"a", b"b"],
    "a guess at the secret": [bytes(32)],
    "a message": [b"I" + bytes(100)],
    "a pickle": [b"S" + pickle.dumps(Bomb())],
    "a segment": [b"M" + pickle.dumps(Bomb())],
    "last words": [b"Xthis is the end"],
    "much": [bytes(1 << 20)],
}
KINDS = {
    "with no mechanism": (zmq.DEALER, {}),
    "with a wrong password": (zmq.PUSH, {"plain_username": b"worker", "plain_password": bytes(32)}),
    "with a long password": (zmq.PUSH, {"plain_username": b"worker", "plain_password": bytes(255)}),
    "as a server": (zmq.PULL, {"plain_server": True}),
    "with encryption": (
        zmq.PUSH,
        dict(
            zip(
                ("curve_publickey", "curve_secretkey", "curve_serverkey"),
                (*zmq.curve_keypair(), zmq.curve_keypair()[0]),
                strict=True,
            )
        ),
    ),
}


@contextmanager
def stranger(address, attack, kind="with no mechanism"):
    """Be connected to an address and have sent something there; what comes back is an error."""
    number, options = KINDS[kind]
    with zmq.Context() as context, context.socket(number) as peer:
        peer.linger = 0
        for name, value in options.items():
            setattr(peer, name, value)
        with peer.get_monitor_socket(zmq.EVENT_CONNECTED) as connected:
            peer.connect(address)
            assert connected.poll(PATIENCE * 1000)
            peer.disable_monitor()
        if number != zmq.PULL:
            with suppress(zmq.Again):  # when it was shut out already
                for _ in range(3):
                    peer.send_multipart(ATTACKS[attack], zmq.NOBLOCK)
        yield
        if number != zmq.PUSH:
            assert not peer.poll(0), "the stranger got something"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_that_connects_first_is_ignored(kind, monkeypatch):
    with (
        before_the_worker(monkeypatch, lambda address: stranger(address, "a pickle", kind)),
        ParallelStreamer(Streamer(arrays, 50), "zmq") as stream,
    ):
        for _ in range(2):
            assert [item["i"] for item in stream] == list(range(50))


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_a_stranger_sends_is_ignored(attack, monkeypatch):
    with (
        before_the_worker(monkeypatch, lambda address: stranger(address, attack, "with a wrong password")),
        ParallelStreamer(Streamer(arrays, 500), "zmq", prefetch=4) as stream,
    ):
        items = stream.iterate()
        assert next(items)["i"] == 0
        ((host, port),) = listening()
        for i in range(1, 500):
            if i % 100 == 0:
                with stranger(f"tcp://{host}:{port}", attack):
                    assert next(items)["i"] == i
            else:
                assert next(items)["i"] == i
        assert next(items, None) is None


# Strangers that speak what they like


def greeting(mechanism):
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32)


def frame(flags, data):
    """Return a frame of fewer than 256 bytes. Flag 1: more follow; 4: it is a command."""
    return bytes([flags, len(data)]) + data


def long_frame(flags, n_bytes):
    """Return the head of a frame that claims to have so many bytes."""
    return struct.pack(">BQ", flags | 2, n_bytes)


HELLO = frame(4, b"\x05HELLO\x06worker\x20" + bytes(32))
BOMB = frame(0, b"S" + pickle.dumps(Bomb()))
RAW = {
    "nothing": b"",
    "garbage": random.Random(0).randbytes(10_000),
    "zeros": bytes(10_000),
    "half a greeting": greeting(b"PLAIN")[:10],
    "a greeting": greeting(b"PLAIN"),
    "half a frame": greeting(b"PLAIN") + HELLO[:20],
    "half a head": greeting(b"PLAIN") + long_frame(4, 100)[:4],
    "a wrong password": greeting(b"PLAIN") + HELLO,
    "a message for a password": greeting(b"PLAIN") + BOMB,
    "a message after a wrong password": greeting(b"PLAIN") + HELLO + BOMB,
    "no password": greeting(b"PLAIN") + frame(4, b"\x08INITIATE") + BOMB,
    "a lying password": greeting(b"PLAIN") + frame(4, b"\x05HELLO\xff\xff"),
    "no mechanism": greeting(b"NULL") + frame(4, b"\x05READY\x0bSocket-Type\0\0\0\x04PUSH") + BOMB,
    "an unknown mechanism": greeting(b"MAGIC") + BOMB,
    "the first version of the protocol": b"\x01\0" + BOMB * 10,
    "the second version of the protocol": b"\xff" + bytes(8) + b"\x7f\x01\x08\0\0" + BOMB,
    "a frame of 2 ** 63 bytes": greeting(b"PLAIN") + long_frame(4, 2**63) + bytes(10_000),
    "a frame of 2 ** 40 bytes": greeting(b"PLAIN") + long_frame(4, 2**40) + bytes(10_000),
    "a command of 2 ** 63 bytes": greeting(b"PLAIN") + HELLO + long_frame(4, 2**63 - 1),
}


@contextmanager
def raw_stranger(address, attack):
    """Be connected to an address and have sent something there; what comes back holds no secret."""
    host, port = address.removeprefix("tcp://").split(":")
    with closing(socket.create_connection((host, int(port)))) as connection:
        with suppress(ConnectionError):  # some are cut off while they are still sending
            connection.sendall(RAW[attack])
        yield
        connection.setblocking(False)
        got = b""
        with suppress(BlockingIOError, ConnectionError):
            while more := connection.recv(1 << 16):
                got += more
        assert len(got) < 200, "more than the answer of a handshake"
        assert b"arrays" not in got


@pytest.mark.parametrize("attack", RAW)
def test_whatever_comes_through_the_port_first_is_ignored(attack, monkeypatch):
    with (
        before_the_worker(monkeypatch, lambda address: raw_stranger(address, attack)),
        ParallelStreamer(Streamer(arrays, 50), "zmq") as stream,
    ):
        for _ in range(2):
            assert [item["i"] for item in stream] == list(range(50))


@pytest.mark.parametrize("attack", RAW)
def test_whatever_comes_through_the_port_later_is_ignored(attack):
    with ParallelStreamer(Streamer(arrays, 50), "zmq", prefetch=2) as stream:
        items = stream.iterate()
        assert next(items)["i"] == 0
        ((host, port),) = listening()
        with raw_stranger(f"{host}:{port}", attack):
            assert [item["i"] for item in items] == list(range(1, 50))


def test_a_stranger_cannot_fill_the_memory():
    """A frame that is too long ends the connection; ones that are not are not kept."""
    with ParallelStreamer(Streamer(arrays, 50), "zmq", prefetch=2) as stream:
        items = stream.iterate()
        next(items)
        (address,) = listening()
        n_bytes = FRAME_BYTES + 1
        for head in (long_frame(4, n_bytes), long_frame(1, n_bytes), long_frame(4, n_bytes - 1)):
            with closing(socket.create_connection(address)) as connection:
                connection.settimeout(PATIENCE)
                connection.sendall(greeting(b"PLAIN") + head)
                with pytest.raises(ConnectionError):
                    connection.sendall(bytes(256 << 20))  # and it is cut off on the way
        assert [item["i"] for item in items] == list(range(1, 50))


def test_a_flood_of_strangers_costs_no_memory_and_no_descriptors():
    process = psutil.Process()
    with ParallelStreamer(Streamer(arrays, 10_000), "zmq", prefetch=4) as stream:
        items = stream.iterate()
        next(items)
        (address,) = listening()
        before = process.num_fds(), process.memory_info().rss

        def flood(n):
            for _ in range(n):
                with (
                    closing(socket.create_connection(address)) as connection,
                    suppress(ConnectionError),
                ):
                    connection.sendall(RAW["a message after a wrong password"])
                    while connection.recv(1 << 16):  # until it is shut out
                        pass

        flood(2000)  # while nobody looks
        thread = threading.Thread(target=flood, args=(2000,))
        thread.start()
        assert [item["i"] for item in items] == list(range(1, 10_000))
        thread.join()
        assert process.num_fds() <= before[0] + 2  # one may be about to be closed
        assert process.memory_info().rss < before[1] + (10 << 20)


# Recorded sessions


class Recorder:
    """Carries one connection to an address, and keeps what went there."""

    def __init__(self, address):
        self._there = address.removeprefix("tcp://").split(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.recorded = b""
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self):
        with closing(self._listener):
            here, _ = self._listener.accept()
        there = socket.create_connection((self._there[0], int(self._there[1])))
        back = threading.Thread(target=self._carry, args=(there, here))
        back.start()
        with closing(here), closing(there):
            self._carry(here, there, record=True)
            back.join()

    def _carry(self, source, target, record=False):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if record:
                    self.recorded += data
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self):
        self._threads[0].join()


@pytest.fixture
def recorders(monkeypatch):
    """Have sessions recorded."""
    recorders = []

    def transport(self, connection):
        made = original(self, connection)
        recorders.append(Recorder(made.make_sender.keywords["address"]))
        return made._replace(make_sender=partial(made.make_sender, address=recorders[-1].address))

    original = backend.ZMQBackend.transport
    monkeypatch.setattr(backend.ZMQBackend, "transport", transport)
    yield recorders
    for recorder in recorders:
        recorder.join()


class Replay:
    """Sends a recorded session in step with the answers; `welcome` tells whether it was let in."""

    def __init__(self, session, address):
        self.welcome = False
        self._session = session
        self._connection = socket.create_connection(address)
        self._connection.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        password, initiate, rest = self._session.partition(b"\x04\x1d\x08INITIATE")
        with closing(self._connection), suppress(ConnectionError):
            self._connection.sendall(password)
            got = b""
            while b"WELCOME" not in got and b"ERROR" not in got:
                more = self._connection.recv(1 << 16)
                got += more
                if not more:
                    return
            self._connection.sendall(initiate + rest)
            self.welcome = b"WELCOME" in got
            while self._connection.recv(1 << 16):
                pass

    def join(self):
        self._thread.join()


def address_of(make_sender):
    host, port = make_sender.keywords["address"].removeprefix("tcp://").split(":")
    return host, int(port)


def test_a_recorded_session_of_an_earlier_pool_is_refused(recorders, monkeypatch):
    with ParallelStreamer(Streamer(arrays, 50), "zmq") as stream:
        assert len(list(stream)) == 50
    (earlier,) = recorders
    earlier.join()
    monkeypatch.undo()
    replays = []

    def transport(self, connection):
        made = original(self, connection)
        replays.append(Replay(earlier.recorded, address_of(made.make_sender)))
        return made

    original = backend.ZMQBackend.transport
    monkeypatch.setattr(backend.ZMQBackend, "transport", transport)
    with ParallelStreamer(Streamer(arrays, 70), "zmq") as stream:
        assert [item["i"] for item in stream] == list(range(70))
    (replayed,) = replays
    replayed.join()
    assert not replayed.welcome


def test_a_recorded_session_of_this_pool_is_refused(recorders):
    """The secret is of use only until the worker's first message is here."""
    with ParallelStreamer(Streamer(arrays, 50), "zmq", prefetch=2) as stream:
        items = stream.iterate()
        assert next(items)["i"] == 0
        (address,) = listening()
        replayed = Replay(recorders[0].recorded, address)
        replayed.join()  # shut out while nobody looks
        assert not replayed.welcome
        assert [item["i"] for item in items] == list(range(1, 50))


def test_a_recorded_session_is_taken_where_the_secret_is_the_same(recorders, monkeypatch):
    """It is the secret that keeps it out, and not the recording that is wrong."""
    monkeypatch.setattr(zmq_listening.secrets, "token_bytes", lambda n: b"s" * n)
    with ParallelStreamer(Streamer(arrays, 1), "zmq") as stream:
        list(stream)
    recorders[0].join()
    here, there = Connection.pair()
    with closing(here), closing(there):
        transport = backend.ZMQBackend().transport(here)
        with closing(transport.make_receiver(here, None)) as receiver:
            replayed = Replay(recorders[0].recorded, address_of(transport.make_sender))
            assert receiver.wait(PATIENCE * 1000)
            message, _ = receiver.receive()
        replayed.join()
    assert replayed.welcome
    assert message[:1] == b"I"


def test_every_worker_has_a_secret_of_its_own():
    here, there = Connection.pair()
    with closing(here), closing(there):
        secrets = set()
        for _ in range(3):
            make_sender, make_receiver = backend.ZMQBackend().transport(here)
            secrets.add(make_sender.keywords["secret"])
            make_receiver(here, None).close()
    assert len(secrets) == 3
    assert all(len(secret) == 32 for secret in secrets)
