"""How interpreters are started: command line, environment, hashes."""

import ast
import os
import subprocess
import sys

import pytest

from pescador import ParallelStreamer, RoundRobinMux, Streamer
from pescador.backends.processes.interpreter import interpreter_environment, python_command

from ...kinds import PATIENCE, ROOT, Script


@pytest.mark.parametrize("first", [True, False])
def test_a_command_line_is_short_however_long_the_search_path_is(first, monkeypatch, tmp_path):
    folders = [str(tmp_path / f"folder{i}" / ("é" * 70)) for i in range(600)]
    for folder in folders:
        os.makedirs(folder)
    folders += [str(tmp_path / f"{i}" / ("x" * 200)) for i in range(600)]  # there are no such folders
    path = [*folders, *sys.path] if first else [*sys.path, *folders]
    monkeypatch.setattr(sys, "path", path)
    code = "import pescador, numpy, zmq, psutil, cloudpickle; print(sys.path)"
    command = python_command(code)
    assert max(map(len, map(os.fsencode, command))) < 1 << 17
    output = subprocess.check_output(command, text=True, env=interpreter_environment())
    found = ast.literal_eval(output)
    kept = [entry for entry in found if entry in folders]
    assert 100 < len(kept) < 600
    assert kept == [entry for entry in folders if entry in kept]
    with ParallelStreamer(Streamer(range, 3), start_method="spawn") as stream:
        assert list(stream) == [0, 1, 2]


APPLICATION = """
import multiprocessing, os, sys
interpreter, sys.executable = sys.executable, sys.argv[1]
sys.frozen = True
import pescador
from pescador.commands import doctor

def take(**options):
    with pescador.ParallelStreamer(pescador.Streamer(range, 3), **options) as stream:
        return list(stream)

for options in ({}, {"start_method": "spawn"}, {"backend": "zmq"}):
    try:
        take(**options)
    except pescador.PescadorError as error:
        assert all(part in str(error) for part in ("set_executable", "'fork'", "'thread'", sys.argv[1]))
    else:
        raise AssertionError
assert {finding.state for finding in doctor._trials(10)} == {"fail"}
assert take(start_method="fork") == take(backend="thread") == [0, 1, 2]
multiprocessing.set_executable(interpreter)
assert take() == take(start_method="spawn") == [0, 1, 2]
print("done")
"""


def test_a_frozen_application_is_not_started_again(tmp_path):
    log, application = tmp_path / "log", tmp_path / "application"
    application.write_text(f"#!/bin/sh\necho started >>{log}\n")
    application.chmod(0o700)
    with Script(tmp_path, APPLICATION, str(application)) as script:
        assert script.finish() == (0, "done\n", "")
    assert not log.exists()


HASHES = """
import os, sys
from pescador import ParallelStreamer, RoundRobinMux, Streamer

def word():
    yield hash("pescador"), os.environ.get("PYTHONHASHSEED"), os.getpid()

def found(streamer, **options):
    with ParallelStreamer(RoundRobinMux([streamer] * 2), n_workers=2, **options) as stream:
        return set(stream)

nested = ParallelStreamer(Streamer(word), start_method="spawn")
items = found(Streamer(word)) | found(Streamer(word), start_method="spawn") | found(nested, backend="zmq")
hashes = {value for value, *_ in items}
assert {environment for _, environment, _ in items} == {seed}
"""


@pytest.mark.parametrize(
    ("seed", "flags", "is_known"),
    [
        (None, [], False),
        (None, ["-I"], False),
        ("random", [], False),
        ("0", [], True),
        ("4294967295", [], True),
        ("7", ["-E"], False),  # the consumer itself did not look at it
    ],
)
def test_all_workers_hash_strings_alike_and_have_the_environment_of_the_consumer(seed, flags, is_known):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    if seed is not None:
        environment["PYTHONHASHSEED"] = seed
    check = "assert hashes == {hash('pescador')}" if is_known else "assert len(hashes) == 1"
    text = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; seed = {seed!r}\n{HASHES}\n{check}, hashes\n"
    subprocess.run([sys.executable, *flags, "-c", text], env=environment, check=True, timeout=2 * PATIENCE)


def test_a_forked_worker_hashes_as_the_consumer_and_those_that_it_starts_agree():
    nested = ParallelStreamer(Streamer(word), start_method="spawn")
    mux = RoundRobinMux([Streamer(word), Streamer(nested)] * 2)
    with ParallelStreamer(mux, n_workers=4, start_method="fork") as stream:
        forked, one, _, other = stream
    assert forked == hash("pescador")
    assert one == other


def word():
    yield hash("pescador")
