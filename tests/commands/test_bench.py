"""``python -m pescador bench`` measures, says what follows from it, and ends cleanly."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from pescador.backends.system import orphans
from pescador.commands import bench, main
from pescador.commands.bench.host import _waiter
from pescador.commands.bench.report import Comparison, Row, advice, check_plot, plot, scaled
from pescador.commands.bench.works import stream_of
from pescador.exceptions import ParameterError

from ..kinds import ROOT

KINDS = {"serial", "thread", "zmq", "shm"}

STREAMS = """
import threading
import time
import pescador

def numbers(start=0):
    print("a line of the stream's own")
    time.sleep(0.001)
    yield from range(start, start + 5)

finite = pescador.Streamer(numbers)
mux = pescador.RoundRobinMux([finite, finite], "cycle")

def factory():
    return finite

def locks():
    while True:
        yield threading.Lock()

def broken():
    yield 1
    raise RuntimeError("disk on fire")

def needs(path):
    yield path

def endless():
    while True:
        time.sleep(0.001)
        yield 1

text = "no stream"
"""


@pytest.fixture(autouse=True)
def short_slices(monkeypatch):
    monkeypatch.setattr(bench, "QUICK", (2, 0.02))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a module of streams."""
    (tmp_path / "mystreams.py").write_text(STREAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("mystreams", None)


@pytest.fixture(scope="module")
def fonts_are_open():
    """matplotlib keeps the files of its fonts open, from the first figure on."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.suptitle("a text")
    figure.savefig(io.BytesIO())


def test_all_kinds_of_work_are_compared_and_written(folder, capfd):
    assert main(["bench", "--quick", "--json", "a.json", "--csv", "a.csv"]) == 0
    out, err = capfd.readouterr()
    assert err == ""  # the bar is for a terminal
    found = json.loads((folder / "a.json").read_text())
    assert [comparison["name"] for comparison in found["comparisons"]] == list(bench.WORKS)
    assert found["interrupted"] is False
    for comparison in found["comparisons"]:
        assert {row["backend"] for row in comparison["rows"]} == KINDS
        assert f"\n{comparison['name']}, " in out
        for row in comparison["rows"]:
            assert len(row["slices"]) == 2
            assert row["rank"] in (1, 2, 3, 4)
            assert all(part["items"] >= 1 and part["memory_bytes"] > 1e6 for part in row["slices"])
            assert sum(part["cpu_seconds"] for part in row["slices"]) > 0
    assert found["advice"][0] in out
    with open("a.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(bench.WORKS) * len(KINDS)
    assert all(float(line["min"]) <= float(line["items/s"]) <= float(line["max"]) for line in lines)


def test_a_stream_of_the_user_is_cycled(folder, capfd):
    assert main(["bench", "mystreams:finite", "--quick", "--json", "a.json"]) == 0
    (comparison,) = json.loads((folder / "a.json").read_text())["comparisons"]
    assert comparison["step"] > 0  # as long as making an item took
    assert {row["backend"] for row in comparison["rows"] if len(row["slices"]) == 2} == KINDS
    assert "a line of the stream's own" not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["finite", "factory", "numbers"])
def test_a_stream_may_be_a_streamer_a_function_that_returns_one_or_a_generator_function(folder, name):
    assert list(stream_of(f"mystreams:{name}", 1)) == [0, 1, 2, 3, 4]


def test_workers_and_the_step_can_be_given(folder):
    arguments = ["bench", "mystreams:mux", "--quick", "--workers", "2", "--step", "3", "--json", "a.json"]
    assert main(arguments) == 0
    (comparison,) = json.loads((folder / "a.json").read_text())["comparisons"]
    assert comparison["step"] == 0.003
    assert all(len(row["slices"]) == 2 for row in comparison["rows"])


def test_a_consumer_waits_for_its_step_in_pieces_of_a_millisecond(monkeypatch):
    now, waits = [0.0], []

    def sleep(seconds):
        waits.append(round(seconds, 6))
        now[0] += 1.1 * seconds  # as sleeping does, a little too long

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    wait = _waiter(0.0004)
    for _ in range(6):
        wait("item")
    assert waits == [0.0012, 0.00108]


def test_a_backend_that_cannot_run_the_stream_is_left_out_and_says_why(folder, capfd):
    assert main(["bench", "mystreams:locks", "--quick"]) == 0
    out = capfd.readouterr().out
    assert "shm failed: DataError: an item cannot be sent" in out
    assert "zmq failed: DataError: an item cannot be sent" in out
    assert "mystreams:locks: thread, " in out or "mystreams:locks: serial, " in out


def test_a_stream_that_fails_everywhere_is_an_error_with_its_traceback(folder, capfd):
    assert main(["bench", "mystreams:broken", "--quick"]) == 1
    out, err = capfd.readouterr()
    assert all(f"{kind} failed: RuntimeError: disk on fire" in out for kind in KINDS)
    assert 'raise RuntimeError("disk on fire")' in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mystreams"], "module:name"),
        (["nowhere:stream"], "there is no module 'nowhere'"),
        (["mystreams:finit"], "has no 'finit'; its streams are finite, mux"),
        (["mystreams:text"], "mystreams:text is 'no stream'"),
        (["mystreams:needs"], "missing a required argument: 'path'"),
        (["mystreams:finite", "--workers", "2"], "is no mux"),
        (["--workers", "0"], "n_workers must be"),
        (["--step", "2"], "a stream of yours"),
        (["mystreams:finite", "--step", "-1"], "at least 0"),
        (["mystreams:finite", "--step", "nan"], "at least 0"),
        (["mystreams:finite", "--step", "inf"], "at least 0"),
        (["--json", "nowhere/a.json"], "there is no folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(folder, monkeypatch, arguments, message, capsys):
    monkeypatch.setattr(bench, "Host", None)
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_figure_is_drawn(fonts_are_open, tmp_path):
    found = [Comparison("work", rows(serial=[50, 60], shm=[100])), Comparison("more", rows(thread=[2]))]
    check_plot("a.png")
    plot(str(tmp_path / "a.png"), found)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_an_unknown_format_is_told_before_anything_is_measured():
    pytest.importorskip("matplotlib")
    with pytest.raises(ParameterError, match=r"must end in one of .*png"):
        check_plot("a.table")


def test_a_missing_matplotlib_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(bench, "Host", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "--plot", "a.png"]) == 2
    assert "pip install 'pescador[plot]'" in capsys.readouterr().err


def test_ctrl_c_ends_it_with_what_it_has(folder):
    terminal, stderr = pty.openpty()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    arguments = ["mystreams:endless", "--step", "1", "--json", "a.json"]
    command = subprocess.Popen(
        [sys.executable, "-m", "pescador", "bench", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(stderr)
    shown = b""
    while b"5/24 mystreams:endless: thread" not in shown:  # so serial has been measured once
        shown += os.read(terminal, 1000)
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate(timeout=60)
    os.close(terminal)
    assert command.returncode == 130
    found = json.loads((folder / "a.json").read_text())
    assert found["interrupted"] is True
    (comparison,) = found["comparisons"]
    assert len(comparison["rows"][0]["slices"]) == 1
    assert "Interrupted" in out
    assert "mystreams:endless: serial, " in out
    assert orphans.processes() == []


def rows(**rates):
    """Rows of backends with one slice for each figure of items per second."""
    part = {"seconds": 1.0, "cpu_seconds": 0.1, "memory_bytes": 1e7}
    return [Row(name, [{"items": rate, **part} for rate in figures]) for name, figures in rates.items()]


def test_backends_close_to_a_faster_one_share_its_rank():
    found = Comparison("work", rows(serial=[50], zmq=[81], shm=[100], thread=[79]), 0.001)
    assert [(row.backend, row.rank) for row in found.ranked()] == [
        ("shm", 1),
        ("zmq", 1),
        ("thread", 3),
        ("serial", 4),
    ]


def test_advice_is_the_simplest_of_the_fastest_with_the_figures():
    found = Comparison("work", rows(serial=[50], thread=[90], zmq=[20], shm=[100]), 0.001)
    assert advice([found]) == [
        "work: thread, 90 items/s, the simplest of the fastest (shm 100); ahead of serial 50, zmq 20"
    ]


def test_noise_is_told():
    found = Comparison("work", rows(serial=[50, 100, 60], thread=[500, 510, 520]), 0.001)
    assert "slices of serial (work) differ by 2.0 times" in advice([found])[-1]


def test_quantities_have_three_digits_and_a_prefix():
    assert [scaled(value, "s") for value in (0, 4.2e-8, 0.00123, 0.9996, 12)] == [
        "0 s",
        "42 ns",
        "1.23 ms",
        "1 s",
        "12 s",
    ]
