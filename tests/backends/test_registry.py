"""Finding backends by their names."""

import os
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest

from pescador import ParallelStreamer, PescadorError, Streamer, backends
from pescador.backends.serial import SerialBackend
from tests.kinds import BACKENDS, ROOT


class ToyBackend(SerialBackend):
    pass


@pytest.fixture(autouse=True)
def registry_restored(monkeypatch):
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))


@pytest.fixture
def entry_points(monkeypatch):
    """Return a list, whose entries are the only entry points that there are."""
    found = []
    monkeypatch.setattr(
        metadata, "entry_points", lambda *, group: [entry for entry in found if entry.group == group]
    )
    return found


def entry(name, value, group="pescador.backends"):
    return EntryPoint(name, value, group)


HERE = f"{__name__}:ToyBackend"


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_found(name):
    assert issubclass(backends.get(name), backends.Backend)
    assert name in backends.names()


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(PescadorError, match=r"unknown backend 'shmm'; there are .*serial, shm, thread, zmq"):
        backends.get("shmm")
    with pytest.raises(ValueError, match="unknown backend 'shmm'"):
        ParallelStreamer(Streamer("abc"), "shmm")


@pytest.mark.parametrize("backend", [ToyBackend, HERE], ids=["class", "string"])
def test_a_registered_backend_is_used(backend):
    backends.register("toy", backend)
    assert backends.get("toy") is ToyBackend
    assert "toy" in backends.names()
    with ParallelStreamer(Streamer("abc"), "toy") as stream:
        assert list(stream) == ["a", "b", "c"]


def test_a_backend_may_be_replaced():
    backends.register("shm", ToyBackend)
    assert backends.get("shm") is ToyBackend
    assert backends.names().count("shm") == 1


def test_what_is_registered_as_a_string_is_imported_when_it_is_used():
    backends.register("toy", "no_such_package.parts:Toy")
    assert "toy" in backends.names()


def test_the_error_says_what_is_not_installed():
    backends.register("toy", "no_such_package.parts:Toy")
    with pytest.raises(PescadorError, match=r"backend 'toy' needs 'no_such_package'.*install it") as caught:
        ParallelStreamer(Streamer("abc"), "toy")
    assert isinstance(caught.value.__cause__, ImportError)


def test_the_error_names_the_extra_of_a_backend_of_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for module in [name for name in sys.modules if name.startswith("pescador.backends.ray")]:
        monkeypatch.delitem(sys.modules, module)
    backends.register("ray", backends._OURS["ray"])
    with pytest.raises(PescadorError, match=r"backend 'ray' needs 'ray'.*pip install \"pescador\[ray\]\""):
        ParallelStreamer(Streamer("abc"), "ray")


@pytest.mark.parametrize("place", [f"{__name__}:Missing", f"{__name__}", "pescador.testing:"])
def test_a_place_without_a_backend_is_an_error_that_names_it(place):
    backends.register("toy", place)
    with pytest.raises(PescadorError, match=f"backend 'toy' was registered as '{place}'.*'module:class'"):
        backends.get("toy")


def test_entry_points_are_found(entry_points):
    entry_points += [entry("other", "a:b", "other.group"), entry("toy", HERE)]
    assert backends.names() == ["ray", "serial", "shm", "thread", "toy", "zmq"]
    assert backends.get("toy") is ToyBackend
    with pytest.raises(PescadorError, match="unknown backend 'other'"):
        backends.get("other")


def test_an_entry_point_is_looked_for_once(entry_points):
    entry_points.append(entry("toy", HERE))
    backends.get("toy")
    entry_points.clear()
    assert backends.get("toy") is ToyBackend


def test_our_own_backends_come_before_entry_points_of_the_same_name(entry_points):
    entry_points.append(entry("thread", HERE))
    assert backends.get("thread") is not ToyBackend


def test_an_entry_point_of_something_not_installed_says_so(entry_points):
    entry_points.append(entry("toy", "no_such_package:Toy"))
    with pytest.raises(PescadorError, match="needs 'no_such_package'"):
        backends.get("toy")


@pytest.mark.parametrize("module", ["zmq", "pytest", "ray", "pescador.backends.shm.backend"])
def test_importing_pescador_imports_nothing_that_only_a_backend_needs(module):
    code = f"import sys, pescador, pescador.testing; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
