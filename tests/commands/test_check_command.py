"""The command `check`, how it compares items, and what it says of the examples."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from pescador.commands import main
from pescador.commands.check.comparing import difference

from ..kinds import ROOT
from ..test_examples import EXAMPLES, imported_packages
from ..test_examples import SECONDS as EXAMPLE_SECONDS

# Comparing


class Plain:
    def __init__(self, x):
        self.x = x


NAN = float("nan")
DATES = np.array(["2020-01-01", "NaT"], "M8[D]")
RECORDS = np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.array([1.0, NAN]),
        lambda: np.array([{"a": 1}, None], object),
        lambda: DATES.copy(),
        lambda: RECORDS.copy(),
        lambda: np.ma.masked_array([1, 2], [True, False]),
        lambda: {"x": [NAN, (1, "a")], "y": {2, 3}},
        lambda: Plain(np.zeros(3)),
        lambda: np.float32(NAN),
        threading.Lock,
    ],
)
def test_equal_items(make):
    assert difference(make(), make()) is None


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (np.zeros(2), np.zeros(2, np.float32), "float64"),
        (np.zeros(2), np.zeros(3), "shape=(2,)"),
        (np.array([0, 1, 2]), np.array([0, 1, 3]), "item[2] is np.int64(2), and np.int64(3)"),
        ({"x": 1}, {"y": 1}, "keys"),
        ({"x": [1, 2.5]}, {"x": [1, 3.5]}, "item['x'][1] is 2.5, and 3.5"),
        ([1], [1, 2], "1 entries, and 2"),
        (1, True, "int, and bool"),
        (Plain(1), Plain(2), "item['x'] is 1, and 2"),
        (np.ma.masked_array([1], [True]), np.ma.masked_array([1], [False]), "item.mask[0]"),
        (RECORDS, np.array([(1, 3.0)], RECORDS.dtype), "item['b'][0]"),
    ],
)
def test_different_items(one, other, words):
    assert words.replace("np.int64(2)", repr(np.int64(2))).replace(
        "np.int64(3)", repr(np.int64(3))
    ) in difference(one, other)


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mystreams.py").write_text(
        "import time, pescador\n"
        "def count():\n    print('its own line')\n    yield from range(30)\n"
        "def clock():\n    while True: yield time.time()\n"
        "clean = pescador.Streamer(count)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mystreams", None)


@pytest.mark.parametrize(("name", "code"), [("clean", 0), ("clock", 1)])
def test_the_command_prints_the_report(folder, capsys, name, code):
    assert main(["check", f"mystreams:{name}", "-n", "5"]) == code
    out = capsys.readouterr().out
    assert out.startswith(f"{name}: 5 items of each opening were compared; {code or 1} ")
    assert ("\nerror    not repeatable: " in out) is bool(code)
    assert "its own line" not in out


@pytest.mark.parametrize("name", ["nothing", "mystreams:nothing", "missing:clean"])
def test_a_name_that_is_none_is_a_wrong_use_of_the_command(folder, capsys, name):
    assert main(["check", name]) == 2
    assert capsys.readouterr().err.startswith("pescador check: ")


# The examples


CHECK_ALL = """
import contextlib, io, sys, tempfile
import pescador

folders = []

class Kept(tempfile.TemporaryDirectory):
    def __init__(self):
        super().__init__()
        folders.append(self)

    def __exit__(self, *exception):
        pass

tempfile.TemporaryDirectory = Kept
try:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), globals())
    streams = {id(value): value for value in globals().values() if isinstance(value, pescador.Streamer)}
    assert streams
    for stream in streams.values():
        report = pescador.check(stream, 10, seconds=60)
        assert report.n_items
        if not report.ok:
            print(stream, report, sep="\\n", end="\\n\\n")
finally:
    for folder in folders:
        folder.cleanup()
"""


NOT_CHECKED = {
    "resume",
    "several_machines",
}  # the one makes its stream in processes of its own, the other a cluster


@pytest.mark.parametrize(
    "script",
    [script for script in EXAMPLES if script.stem not in NOT_CHECKED],
    ids=lambda script: script.stem,
)
def test_the_streams_of_the_examples_break_no_law(script, tmp_path):
    for package in imported_packages(script):
        pytest.importorskip(package)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", CHECK_ALL, str(script)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
