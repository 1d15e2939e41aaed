"""``python -m pescador doctor`` says whether every backend can run here, and what to do where one cannot."""

import os
import resource
import subprocess
import sys

import pytest

from pescador import backends
from pescador.backends.system.owner import this_owner
from pescador.commands import doctor, main

from ..kinds import PATIENCE, ROOT, START_METHODS, Gone
from ..worlds import WORLDS, run_in

LIMITS = ["system", "shared memory", "memory", "descriptors", "processes", "leftovers"]
TRIALS = [*(f"shm, {method}" for method in START_METHODS), "serial", "thread", "zmq"]

COMMAND = [sys.executable, "-m", "pescador", "doctor", "--timeout", "60"]


def run(*before, **options):
    """Run the doctor, and return the exit code and the lines, as (state, rest) by name."""
    done = subprocess.run(
        [*before, *COMMAND],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=100,
        **options,
    )
    assert done.stderr == ""
    lines = {line[6:22].strip(): (line[:6].strip(), line[23:]) for line in done.stdout.splitlines()}
    assert list(lines) == LIMITS + TRIALS
    return done.returncode, lines


def in_a_container(size, left):
    """Return what runs a command in a container with so much shared memory, in which a segment was left."""
    shell = (
        f"mount -t tmpfs -o size={size} tmpfs /dev/shm && touch /dev/shm/{left} || exit 2\n"
        f'"$@"; code=$?; test -e /dev/shm/{left} || echo removed; exit $code'
    )
    command = ["unshare", "-rm", "sh", "-c", shell, "sh"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("a container cannot be made here")
    return command


def test_all_is_well_here(capsys):
    assert main(["doctor", "--timeout", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[6:22].strip() for line in lines] == LIMITS + TRIALS
    for line in lines[-len(TRIALS) :]:
        assert line.startswith("ok ")
        assert "an item of 1.0 MiB came in" in line


def test_few_descriptors_are_a_warning_as_long_as_they_do():
    code, lines = run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    state, words = lines["descriptors"]
    assert (code, state) == (0, "warn")
    assert words.startswith("100 may be open")
    assert "ulimit -n 4096" in words


def test_too_few_descriptors_are_a_failure_with_the_reason():
    code, lines = run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)))
    assert code == 1
    for name in TRIALS:
        state, words = lines[name]
        assert state == "fail"
        assert "Too many open files" in words


def test_a_tiny_shared_memory_fails_shm_alone_and_leftovers_are_shown_and_left():
    left = f"pescador-{this_owner()._replace(pid=999_999_999)}-0123abcd"
    code, lines = run(*in_a_container(65536, left))
    assert code == 1
    assert lines["shared memory"][0] == "warn"
    assert "--shm-size" in lines["shared memory"][1]
    assert lines["leftovers"] == ("warn", f"segment {left}. Remove them: python -m pescador clean")
    for name in TRIALS:
        state, words = lines[name]
        assert state == ("fail" if name.startswith("shm") else "ok")
        assert ("there is not enough shared memory: 1,048,576 bytes" in words) == name.startswith("shm")


def test_a_trial_that_takes_too_long_is_killed_with_its_workers(monkeypatch, tmp_path):
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    hangs = (
        "import os, subprocess, threading; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']); "
        f"open({str(fifo)!r}, 'w').write(str(child.pid)); threading.Event().wait()"
    )
    command = doctor.python_command
    monkeypatch.setattr(doctor, "python_command", lambda code: command(hangs))
    monkeypatch.setattr(doctor, "START_METHODS", ("fork",))
    monkeypatch.setattr(backends, "names", lambda: ["shm"])
    trials = doctor._trials(0.0)
    started = []

    def wait_until_it_hangs(*arguments, start=doctor._start_trial):
        trial = start(*arguments)
        started.extend([trial.pid, int(fifo.read_text())])
        return trial

    monkeypatch.setattr(doctor, "_start_trial", wait_until_it_hangs)
    (finding,) = trials
    assert finding.state == "fail"
    assert "no item came in 0 s" in str(finding)
    assert "--timeout 60" in str(finding)
    assert not Gone(started).wait(PATIENCE)


def test_a_trial_that_crashes_is_told_by_its_exit_code(monkeypatch):
    command = doctor.python_command
    monkeypatch.setattr(doctor, "python_command", lambda code: command("import os; os.kill(os.getpid(), 9)"))
    findings = list(doctor._trials(PATIENCE))
    assert [finding.figure for finding in findings] == ["the trial ended with exit code -9"] * len(TRIALS)


@pytest.mark.parametrize(
    ("module", "name", "line"),
    [
        (doctor.platform, "release", "system"),
        (os, "statvfs", "shared memory"),
        (doctor.psutil, "virtual_memory", "memory"),
        (resource, "getrlimit", "descriptors"),
        (doctor, "_cgroup_folders", "processes"),
        (doctor.orphans, "reclaim", "leftovers"),
    ],
)
@pytest.mark.parametrize("error", [FileNotFoundError(2, "none"), AttributeError("none"), ValueError("none")])
def test_what_cannot_be_found_out_is_a_warning(module, name, line, error, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(doctor, "_trials", lambda timeout: iter(()))
    monkeypatch.setattr(module, name, fail)
    findings = {finding.name: finding for finding in doctor.examine(7)}
    assert list(findings) == LIMITS
    assert findings[line].state in ("warn", "fail")


@pytest.mark.parametrize("world", ["no /proc", "/proc of another pid namespace"])
def test_the_doctor_works_in_every_world(world):
    done = run_in(WORLDS[world], *COMMAND)
    lines = done.stdout.splitlines()
    assert [line[6:22].strip() for line in lines] == LIMITS + TRIALS
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_code_counts_failures_not_warnings(monkeypatch, capsys):
    warning = doctor.Finding("warn", "memory", "5 KiB free", "Buy some")
    failure = doctor.Finding("fail", "zmq", "no port?")
    monkeypatch.setattr(doctor, "examine", lambda timeout: (finding for finding in [warning]))
    assert main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "examine", lambda timeout: (finding for finding in [failure, warning]))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "fail  zmq              no port? See the limits above",
        "warn  memory           5 KiB free. Buy some",
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_a_container_are_read(version, monkeypatch, tmp_path):
    """The tightest of the group of this process and those around it holds."""
    names = {1: ("memory", "memory.limit_in_bytes"), 2: ("", "memory.max")}
    with open("/proc/self/cgroup") as file:
        lines = [line.split(":", 2) for line in file.read().splitlines()]
    controller, limit = names[version]
    paths = [
        path for number, kinds, path in lines if kinds == controller and (number == "0") == (version == 2)
    ]
    if not paths:
        pytest.skip(f"no control groups of version {version} here")
    root, pids_root = tmp_path / controller, tmp_path / ("pids" if version == 1 else "")
    own = root / paths[0].strip("/")
    own.mkdir(parents=True, exist_ok=True)
    pids_root.mkdir(exist_ok=True)
    (own / limit).write_text("max\n")
    (root / limit).write_text(f"{1 << 29}\n")
    (pids_root / "pids.max").write_text("70\n")
    (pids_root / "pids.current").write_text("60\n")
    monkeypatch.setattr(doctor, "CGROUPS", str(tmp_path))
    memory, processes = doctor._memory("memory"), doctor._processes("processes")
    assert (memory.state, processes.state) == ("warn", "warn")
    assert memory.figure == "512.0 MiB for the container or job (cgroup)"
    assert processes.figure == "60 of 70 in the container or job (cgroup), threads included"
