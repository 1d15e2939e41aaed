"""The command line, whichever command: arguments, and Ctrl-C at any time."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

import pescador
from pescador.backends.system import orphans
from pescador.commands import bench, main

from ..kinds import PATIENCE, ROOT, Gone


@pytest.fixture
def interruptible():
    """Where the tests run in the background of a shell, Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"pescador {pescador.__version__}\n"


@pytest.mark.parametrize("text", ["-1", "0", "nan", "inf", "1e9", "soon", ""])
def test_a_timeout_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--timeout", text])
    assert end.value.code == 2
    expected = "argument --timeout: a number of seconds above 0, and at most 86400 (a day), is needed, not"
    assert f"{expected} {text!r}\n" in capsys.readouterr().err


def interrupted(process):
    """Interrupt a command as a terminal does, and return its output; no process is left, and no traceback."""
    children = Gone(child.pid for child in psutil.Process(process.pid).children(recursive=True))
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    assert "KeyboardInterrupt" not in output + errors
    assert not children.wait(PATIENCE)
    return output


def command(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "pescador", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_while_trials_run_ends_the_doctor(tmp_path):
    with command(tmp_path, "doctor") as process:
        while process.stdout.readline().split()[1] != "leftovers":
            pass
        interrupted(process)


def test_ctrl_c_while_the_module_of_the_user_is_imported_ends_bench(tmp_path):
    (tmp_path / "mystreams.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(1000)\n")
    with command(tmp_path, "bench", "mystreams:stream") as process:
        assert process.stdout.readline() == "importing\n"
        assert interrupted(process) == ""


@pytest.mark.parametrize("arguments", ["", "threading.Lock()"], ids=["in a worker", "in this process"])
def test_ctrl_c_while_a_stream_is_waited_for_ends_check(arguments, tmp_path):
    (tmp_path / "mystreams.py").write_text(
        "import sys, threading, time, pescador\n"
        "def block(*locks):\n"
        "    print('opened', file=sys.stderr, flush=True)\n"
        "    time.sleep(1000)\n"
        "    yield\n"
        f"stream = pescador.Streamer(block, {arguments})\n"
    )
    with command(tmp_path, "check", "mystreams:stream") as process:
        assert process.stderr.readline() == "opened\n"
        assert interrupted(process) == ""


def test_ctrl_c_while_orphans_are_waited_for_ends_clean(tmp_path, monkeypatch, capfd):
    def interrupt(dry_run):
        raise KeyboardInterrupt

    monkeypatch.setattr(orphans, "reclaim", interrupt)
    assert main(["clean"]) == 130
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("n_started", [1, 2, 3])
@pytest.mark.parametrize("arguments", [["doctor"], ["bench", "--quick"]], ids=["doctor", "bench"])
def test_ctrl_c_while_a_process_starts_leaves_none(arguments, n_started, interruptible, monkeypatch, capfd):
    """It comes when that is there, and nobody knows of it yet."""
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self.pid)
            if len(started) == n_started:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    assert main(arguments) == 130
    output, errors = capfd.readouterr()
    assert "Traceback" not in output + errors
    assert len(started) == n_started
    assert not Gone(started).wait(0)


def test_a_second_ctrl_c_ends_bench_at_once(interruptible, monkeypatch, capfd):
    """Its hosts are no longer asked to end, nor waited for."""
    started = []

    class Host(bench.Host):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self._process.pid)
            if len(started) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        def close(self):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(bench, "Host", Host)
    assert main(["bench", "--quick"]) == 130
    assert len(started) == 3
    assert not Gone(started).wait(0)
    assert "Traceback" not in capfd.readouterr().err


def test_commands_that_are_not_run_are_not_imported():
    commands = {f"pescador.commands.{name}" for name in ("bench", "check", "doctor", "clean")}
    code = f"import sys, pescador.__main__; print({commands} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"
