"""Workers of a consumer that is dead are ended, and nothing else is touched.

Any other process that starts workers reclaims what is really an orphan, so a test has none: either it only
asks, or the owner is dead for nobody but the test.
"""

import logging
import os
import subprocess
import sys

import psutil
import pytest

from pescador import ParallelStreamer, Streamer
from pescador.__main__ import main
from pescador.backends.processes.interpreter import python_command
from pescador.backends.system import orphans
from pescador.backends.system.owner import this_owner
from pescador.commands import doctor

from ...kinds import worker_pid
from ...worlds import ENVIRONMENT, WORLDS, run_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, no process is ended")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can have things of other users")


def dead():
    """Return the token of a process that does not exist."""
    return str(this_owner()._replace(pid=999_999_999))


@pytest.fixture
def believed_dead(monkeypatch):
    """Return the token of an owner that is dead for this test alone; its workers don't end by themselves."""
    dead = this_owner()._replace(time_namespace="1")
    monkeypatch.setattr(orphans, "PATIENCE", 0)
    monkeypatch.setattr(orphans, "is_dead", lambda owner: owner == dead)
    return str(dead)


@pytest.fixture
def worker():
    """Start processes with such a command line, which end with the test."""
    started = []

    def start(command, **options):
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        )
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


WAITS = (
    "import sys; sys.path[:] = [*[], *filter(None, sys.path)]; print('waits', flush=True); sys.stdin.read()"
)


def command_of(owner, python=sys.executable):
    return [python, "-c", WAITS, f"{orphans.MARK}{owner}"]


@pytest.fixture
def orphan(believed_dead, worker):
    """Start a process of the owner that is believed dead; it has begun: before, it has no command line."""
    process = worker(command_of(believed_dead))
    assert process.stdout.readline() == "waits\n"
    return process


# Processes


def test_a_process_of_ours_is_known_by_its_whole_command_line():
    assert orphans.owner_of(python_command("pass")) == this_owner()


MARK = f"{orphans.MARK}{dead()}"


@pytest.mark.parametrize(
    ("arguments", "is_ours"),
    [
        (["python", "-c", WAITS, MARK], True),
        (["python", "-X", "dev", "-Wd", "-I", "-c", WAITS, MARK], True),
        ([], False),
        ([MARK], False),
        (["grep", MARK], False),
        (["grep", "-c", WAITS, MARK, "."], False),
        (["python", "-c", "print('another')", MARK], False),
        (["strace", "-f", "python", "-c", WAITS, MARK], False),
        (["bash", "-c", f"python -c {WAITS}", MARK], False),
        (["python", "-c", WAITS, f"{MARK}0"], False),
        (["python", "-c", WAITS, f"{orphans.MARK}999999999-1"], False),
        (["python", "-c", WAITS, f"pescador-worker-{dead()}"], False),
        (["python", "-c", WAITS, f"my-{MARK}"], False),
    ],
)
def test_other_processes_may_have_our_words_in_their_command_line(arguments, is_ours):
    assert (orphans.owner_of(arguments) is not None) == is_ours


def test_a_worker_whose_consumer_is_dead_is_killed(orphan, believed_dead, worker):
    others = [
        worker(command_of(this_owner())),
        worker(["grep", *command_of(believed_dead)[-1:]]),
    ]
    assert f"process {orphan.pid}" in orphans.reclaim(dry_run=True)
    assert orphan.poll() is None
    assert f"process {orphan.pid}" in orphans.reclaim()
    assert orphan.wait(30) < 0
    assert [other.poll() for other in others] == [None, None]
    assert orphan.pid not in orphans.processes()


def test_a_process_that_cannot_be_killed_is_not_reported(orphan, monkeypatch):
    def refuse(descriptor, number):
        raise PermissionError

    monkeypatch.setattr(orphans, "DYING_SECONDS", 0)
    monkeypatch.setattr("signal.pidfd_send_signal", refuse)
    assert f"process {orphan.pid}" not in orphans.reclaim()


def test_a_process_that_is_about_to_end_is_not_reported(orphan, monkeypatch):
    found = orphans.processes()
    assert orphan.pid in found
    monkeypatch.setattr(orphans, "processes", lambda: orphan.stdin.close() or found)
    monkeypatch.setattr(orphans, "PATIENCE", 30)
    assert f"process {orphan.pid}" not in orphans.reclaim()
    assert orphan.wait(30) == 0


def test_a_process_that_got_the_number_of_an_orphan_is_left_alone(believed_dead, worker, monkeypatch):
    other = worker(["cat"])
    monkeypatch.setattr(orphans, "processes", lambda: [other.pid])
    assert orphans.reclaim() == []
    assert other.poll() is None


@as_root
def test_a_process_of_another_user_is_left_alone_even_by_root(believed_dead, worker):
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
    other = worker(command_of(believed_dead, python), user=12345, group=12345, extra_groups=[], cwd="/")
    if other.stdout.readline() != "waits\n":
        pytest.skip("another user cannot run Python here")
    assert str(orphans.owner_of(psutil.Process(other.pid).cmdline())) == believed_dead
    assert f"process {other.pid}" not in orphans.reclaim()
    assert other.poll() is None


# No failure of looking reaches anybody

OF_PSUTIL = [
    OSError(5, "I/O error"),
    IndexError("list index"),
    psutil.AccessDenied(1),
    psutil.NoSuchProcess(1),
]
OF_THE_SYSTEM = [FileNotFoundError(2, "missing"), PermissionError(13, "hidden"), OSError(24, "too many")]
FAILURES = [
    *((orphans, name, error) for name in ("_pids", "_arguments") for error in OF_PSUTIL),
    *((psutil, "Process", error) for error in OF_PSUTIL),
    *((psutil.Process, "uids", error) for error in OF_PSUTIL),
    *((os, name, error) for name in ("listdir", "readlink") for error in OF_THE_SYSTEM),
    (orphans, "watch", OF_THE_SYSTEM[2]),
]


@pytest.mark.parametrize(
    ("module", "name", "error"), FAILURES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_what_cannot_be_looked_at_is_left_alone(module, name, error, orphan):
    def fail(*arguments, **options):
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, fail)
        assert orphans.reclaim() == []
    assert orphan.poll() is None


# What is said


def test_what_is_reclaimed_goes_to_the_logger(monkeypatch, caplog, capfd):
    monkeypatch.setattr(orphans, "_reclaimed_by", 0)
    monkeypatch.setattr(orphans, "reclaim", lambda: ["process 7"])
    with caplog.at_level(logging.INFO, "pescador"):
        orphans.reclaim_once()
        orphans.reclaim_once()
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("pescador", "INFO", "reclaimed process 7, whose owner is dead")
    ]
    assert capfd.readouterr() == ("", "")


def test_the_doctor_shows_what_is_left_and_clean_removes_it(orphan, capsys):
    leftovers = doctor._leftovers("leftovers")
    assert leftovers.state == "warn"
    assert f"process {orphan.pid}" in leftovers.figure
    assert "python -m pescador clean" in leftovers.remedy
    assert main(["clean", "--dry-run"]) == 0
    assert f"would remove process {orphan.pid}\n" in capsys.readouterr().out
    assert orphan.poll() is None
    assert main(["clean"]) == 0
    assert f"removed process {orphan.pid}\n" in capsys.readouterr().out
    assert orphan.wait(30) < 0


# Real namespaces and users

CONSUMER = """
from pescador import ParallelStreamer, Streamer
with ParallelStreamer(Streamer(range, 10**6), {options}) as stream:
    items = iter(stream)
    next(items)
    print("running", flush=True)
    input()
    assert next(items) == 1
print("done")
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_of_a_live_consumer_in_another_namespace_are_no_orphans(method, worker, capsys):
    run_in(WORLDS["a pid namespace"], "true")
    script = CONSUMER.format(options=f"start_method={method!r}")
    with subprocess.Popen(
        [*WORLDS["a pid namespace"], sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as consumer:
        try:
            assert consumer.stdout.readline() == "running\n"
            inside = psutil.Process(consumer.pid).children(recursive=True)
            marked = [process.pid for process in inside if orphans.owner_of(process.cmdline())]
            assert marked
            assert not {*marked} & {*orphans.processes()}
            assert orphans.reclaim(dry_run=True) == []
            output, _ = consumer.communicate("\n", timeout=60)
        finally:
            consumer.kill()
    assert (consumer.returncode, output) == (0, "done\n")


@pytest.mark.parametrize("world", [name for name in WORLDS if "hidden" not in name])
def test_workers_of_a_live_consumer_are_no_orphans_seen_from_another_world(world):
    with ParallelStreamer(Streamer(range, 10**6), start_method="spawn") as stream:
        items = iter(stream)
        next(items)
        pid = worker_pid(stream)
        done = run_in(WORLDS[world], sys.executable, "-m", "pescador", "clean")
        assert (done.returncode, done.stdout) == (0, "nothing is left behind\n"), done.stderr
        assert psutil.pid_exists(pid)
        assert next(items) == 1
