"""skip_errors: streams that end where they raise."""

import logging

import pytest

from pescador import (
    ChainMux,
    DataError,
    ParallelStreamer,
    PescadorError,
    ShuffledMux,
    StochasticMux,
    Streamer,
    skip_errors,
)

from .kinds import Script, every_backend
from .streams import Counting, failing
from .test_sources import take

# skip_errors


def test_items_are_passed_on_unchanged():
    items = [object(), None, {"x": 1}]
    assert all(a is b for a, b in zip(skip_errors(items, OSError), items, strict=True))
    assert list(skip_errors([], OSError)) == []


@pytest.mark.parametrize("error", [OSError, FileNotFoundError, ValueError, DataError])
def test_a_stream_ends_where_it_raises_and_the_logger_is_told(error, caplog):
    stream = Streamer(failing, 2, error)
    assert list(skip_errors(stream, OSError, ValueError)) == [0, 1]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("pescador", logging.WARNING)
    assert repr(stream) in record.getMessage()
    assert f"{error.__name__}: it is broken" in record.getMessage()
    assert all(type(argument) is str for argument in record.args)  # and so it keeps nothing alive


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_other_errors_are_raised(error, caplog):
    with pytest.raises(error, match="it is broken"):
        list(skip_errors(failing(2, error), OSError, ValueError))
    assert not caplog.records


def test_an_error_at_the_opening_is_skipped_too(caplog):
    class Broken:
        def __iter__(self):
            raise OSError("there is no such file")

    assert list(skip_errors(Broken(), OSError)) == []
    assert "Broken" in caplog.text


def test_the_stream_is_closed_and_a_generator_of_the_caller_stays_open():
    source = Counting()
    items = skip_errors(Streamer(source), OSError)
    assert (source.opened, take(2, items)) == (0, [0, 1])
    items.close()
    assert (source.taken, source.running) == (2, 0)
    generator = (i for i in range(5))
    items = skip_errors(generator, OSError)
    assert next(items) == 0
    items.close()
    assert list(generator) == [1, 2, 3, 4]


@every_backend
def test_a_mux_goes_on_without_the_streams_that_fail(backend, caplog):
    streams = [Streamer(failing, n, OSError, "abc"[n]) for n in range(3)] + [Streamer(range, 4)]
    safe = [Streamer(skip_errors, stream, OSError) for stream in streams]
    with ParallelStreamer(ShuffledMux(safe, random_state=0), backend, n_workers=2) as parallel:
        items = list(parallel(300))
    assert len(items) == 300
    assert set(items) == {0, 1, 2, 3}
    with ParallelStreamer(ChainMux(safe), backend, n_workers=2) as parallel:
        assert list(parallel) == [0, 0, 1, 0, 1, 2, 3]
    if backend in ("serial", "thread"):  # elsewhere it is told in another process
        assert "OSError: a" in caplog.text


def test_a_stream_that_fails_before_its_first_item_is_dropped(caplog):
    streams = [Streamer(skip_errors, Streamer(failing, 0, OSError), OSError), Streamer(range, 3)]
    mux = StochasticMux(streams, 1, rate=2, random_state=0)
    assert len(list(mux(100))) == 100
    assert len(caplog.records) == 1
    assert list(StochasticMux(streams[:1], 1, rate=2, random_state=0)) == []


def test_a_worker_process_prints_what_it_skips(tmp_path):
    text = """
import pescador

def read(name):
    yield name
    raise OSError("it is broken")

stream = pescador.Streamer(pescador.skip_errors, pescador.Streamer(read, "a.npz"), OSError)
with pescador.ParallelStreamer(stream) as parallel:
    print(list(parallel))
"""
    with Script(tmp_path, text) as script:
        code, output, errors = script.finish()
    assert (code, output) == (0, "['a.npz']\n")
    assert "Streamer(read, 'a.npz')" in errors
    assert "OSError: it is broken" in errors
    assert "Traceback" not in errors


def test_bad_arguments_raise_at_once():
    with pytest.raises(PescadorError, match="at least one"):
        skip_errors([])
    for bad in (OSError("x"), KeyboardInterrupt, GeneratorExit, BaseException, int, "OSError", (OSError,)):
        with pytest.raises(PescadorError, match="classes of exceptions"):
            skip_errors([], ValueError, bad)
    with pytest.raises(PescadorError, match="not a int"):
        skip_errors(5, OSError)
