import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import pytest

import pescador
from pescador.exceptions import MissingKeyError

PUBLIC = {
    *("Streamer", "streamable", "Epochs"),
    *("StochasticMux", "ShuffledMux", "RoundRobinMux", "ChainMux", "Mux", "BaseMux"),
    *("ParallelStreamer", "ZMQStreamer"),
    *("buffer_stream", "tuples", "keras_tuples", "cache"),
    *("rows", "patches", "skip_errors", "shard"),
    *("RNG", "START", "stateless", "check", "replay", "empty", "PescadorError", "DataError", "WorkerError"),
}

MODULES = [module.name for module in pkgutil.walk_packages(pescador.__path__, "pescador.")]


def in_order(name):
    """Key of the order in which ruff (RUF022) wants __all__: CONSTANTS, Classes, functions."""
    return not name.isupper(), not name[0].isupper(), name


def test_the_package_has_exactly_the_public_names():
    assert set(pescador.__all__) == PUBLIC
    assert pescador.__all__ == sorted(PUBLIC, key=in_order)
    assert all(hasattr(pescador, name) for name in PUBLIC)
    assert pescador.__version__


@pytest.mark.parametrize("name", MODULES)
def test_all_of_a_module_is_sorted_and_true(name):
    try:
        module = importlib.import_module(name)
    except (pescador.PescadorError, ModuleNotFoundError) as error:  # what it needs is not there
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    names = getattr(module, "__all__", [] if hasattr(module, "__path__") else None)  # a folder may have none
    assert names == sorted(set(names), key=in_order)
    assert [public for public in names if not hasattr(module, public)] == []
    assert module.__doc__


@pytest.mark.parametrize("name", ["core", "mux", "maps", "zmq_stream", "backends", "testing"])
def test_import_paths_that_users_know_are_valid(name):
    assert importlib.import_module(f"pescador.{name}")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("core", ["Streamer", "streamable"]),
        ("mux", ["StochasticMux", "ShuffledMux", "RoundRobinMux", "ChainMux", "Mux", "BaseMux"]),
        ("maps", ["buffer_stream", "tuples", "keras_tuples", "cache"]),
        ("zmq_stream", ["ZMQStreamer"]),
    ],
)
def test_names_are_found_where_version_2_had_them(module, names):
    module = importlib.import_module(f"pescador.{module}")
    assert all(getattr(module, name) is getattr(pescador, name) for name in names)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"RNG"}))
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(getattr(pescador, name))


@pytest.mark.parametrize(
    ("error", "builtin"),
    [("PescadorError", Exception), ("DataError", ValueError), ("WorkerError", RuntimeError)],
)
def test_errors_are_pescador_errors_and_what_a_user_would_catch(error, builtin):
    assert issubclass(getattr(pescador, error), pescador.PescadorError)
    assert issubclass(getattr(pescador, error), builtin)


def test_a_missing_key_is_a_data_error_and_a_key_error():
    assert issubclass(MissingKeyError, pescador.DataError)
    assert issubclass(MissingKeyError, KeyError)


def test_a_bad_parameter_is_a_value_error():
    with pytest.raises(ValueError, match="at least one streamer"):
        pescador.ChainMux([])


def test_empty_is_numpy_empty_outside_a_worker():
    array = pescador.empty((2, 3), "i2", "F")
    assert (array.shape, array.dtype, array.flags.f_contiguous, array.flags.owndata) == (
        (2, 3),
        "i2",
        True,
        True,
    )
    assert pescador.empty(4).shape == (4,)
    assert pescador.empty((), object).dtype == object


HEAVY = {
    *{"cloudpickle", "psutil", "zmq", "torch", "keras", "ray"},
    *{"asyncio", "concurrent.futures", "hashlib", "importlib.metadata", "json", "logging", "multiprocessing"},
    *{"numpy.random", "pathlib", "socket", "subprocess", "tempfile", "traceback", "urllib.parse"},
}
"""Modules that take long to import, and that few programs need, or not at once."""

IMPORTED = """
import sys, numpy
before = set(sys.modules)
import pescador
print(*sorted(set(sys.modules) - before))
"""


def test_what_takes_long_to_import_is_not_imported_with_pescador():
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "pescador.parallel" in imported
    assert HEAVY.isdisjoint(imported)


def test_names_that_are_imported_later_are_listed():
    assert set(dir(pescador)) >= PUBLIC
