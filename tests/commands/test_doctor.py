"""``python -m pescador doctor`` says whether every backend can run here, and what to do where one cannot."""

import os
import resource
import subprocess
import sys

import pytest

from pescador import backends
from pescador.backends.system.limits import Room
from pescador.commands import doctor, main

from ..kinds import PATIENCE, ROOT, START_METHODS, Gone
from ..worlds import SHARED_MEMORY, WORLDS, in_a_container, made_up_group, real_group, run_in

LIMITS = ["system", "workers", "memory", "descriptors", "processes", "leftovers"]
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


def test_all_is_well_here(capsys):
    assert main(["doctor", "--timeout", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[6:22].strip() for line in lines] == LIMITS + TRIALS
    if sys.platform == "linux":
        workers = "start by forkserver, share memory by memfd, and are watched by pidfd"
        assert lines[1] == f"ok    workers          {workers}"
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


@pytest.mark.parametrize("mounts", SHARED_MEMORY.values(), ids=SHARED_MEMORY)
def test_dev_shm_does_not_matter(mounts):
    code, lines = run(*in_a_container(mounts))
    assert code == 0
    assert {lines[name][0] for name in TRIALS} == {"ok"}


def test_next_to_no_memory_fails_shm_alone():
    with made_up_group() as group:
        limit = ["sh", "-c", f'echo 614400 > {group.limit}; exec "$@"', "sh"]
        code, lines = run(*group.command, *limit)
    assert code == 1
    where = f"of the 614,400 of the container or job (control group {group.folder})"
    state, words = lines["memory"]
    assert state == "warn"
    assert words.startswith(f"600 KiB free {where}. A ring takes up to 256.0 MiB for each worker. ")
    for name in TRIALS:
        state, words = lines[name]
        assert state == ("fail" if name.startswith("shm") else "ok")
        too_little = "there is not enough memory: 1,048,576 bytes were asked for, but 614,400 bytes are free"
        assert (f"{too_little} {where}" in words) == name.startswith("shm")


def test_a_small_container_is_a_warning_as_long_as_it_does():
    with real_group() as group:
        limit = ["sh", "-c", f'echo {1000 << 20} > {group.limit}; exec "$@"', "sh"]
        code, lines = run(*group.command, *limit)
    assert code == 0
    state, words = lines["memory"]
    assert state == "warn"
    assert f"MiB free of the 1,048,576,000 of the container or job (control group {group.folder})" in words


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
        (doctor.shared_memory, "kind", "workers"),
        (doctor, "free_memory", "memory"),
        (resource, "getrlimit", "descriptors"),
        (doctor, "control_groups", "processes"),
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


def test_limits_of_a_container_are_shown(monkeypatch, tmp_path):
    """For each resource, the one that leaves the least."""
    for group, used in (("tight", 60), ("wide", 50)):
        (tmp_path / group).mkdir()
        (tmp_path / group / "pids.max").write_text("70\n")
        (tmp_path / group / "pids.current").write_text(f"{used}\n")
    groups = [str(tmp_path / group) for group in ("none", "tight", "wide")]
    monkeypatch.setattr(doctor, "control_groups", lambda controller: groups if controller == "pids" else [])
    monkeypatch.setattr(doctor, "free_memory", lambda: Room(1 << 29, "of the moon"))
    memory, processes = doctor._memory("memory"), doctor._processes("processes")
    assert (memory.state, processes.state) == ("warn", "warn")
    assert memory.figure == "512.0 MiB free of the moon"
    assert processes.figure == "60 of 70 in the container or job (cgroup), threads included"


def test_without_any_limit_it_is_said_that_nobody_can_tell(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: Room(sys.maxsize, "as far as can be told"))
    assert doctor._memory("memory")[:3] == ("warn", "memory", "nobody can tell how much is free")


def test_a_limit_of_addresses_counts_as_memory_does(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 29, resource.RLIM_INFINITY))
    memory = doctor._memory("memory")
    assert (memory.state, memory.figure) == ("warn", "512.0 MiB of addresses for a process (ulimit -v)")
