"""The conformance suite, on every backend and start method, and on one of a third party."""

import pytest

from pescador import backends
from pescador.backends import serial
from pescador.testing import BackendConformance, assert_same, sample_items
from tests.kinds import START_METHODS


class TestSerial(BackendConformance):
    backend = "serial"


class TestThread(BackendConformance):
    backend = "thread"


class ProcessConformance(BackendConformance):
    @pytest.fixture(autouse=True, params=START_METHODS)
    def every_start_method(self, request):
        self.options = {**type(self).options, "start_method": request.param}


class TestShm(ProcessConformance):
    backend = "shm"


class TestShmWithASmallRing(BackendConformance):
    backend = "shm"
    options = {"ring_bytes": 1 << 16}  # noqa: RUF012 -- as the class declares it


class TestZMQ(ProcessConformance):
    backend = "zmq"


class ToyBackend(serial.SerialBackend):
    """What the least of third parties might write."""

    def __init__(self, *, polite=False):
        assert polite


class TestThirdParty(BackendConformance):
    backend = "toy"
    options = {"polite": True}  # noqa: RUF012 -- as above

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch):
        monkeypatch.setattr(backends, "_backends", dict(backends._backends))
        backends.register("toy", ToyBackend)


def test_the_suite_tells_items_apart():
    items, others = sample_items(), sample_items()
    for i, item in enumerate(items):
        assert_same(item, others[i])
        for other in others[:i] + others[i + 1 :]:
            with pytest.raises(AssertionError):
                assert_same(item, other)
