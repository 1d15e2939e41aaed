"""What a killed process left is reclaimed, and nothing else is touched.

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
from pescador.backends.system import orphans, shared_memory
from pescador.backends.system.owner import this_owner

from ...kinds import worker_pid
from ...worlds import ANOTHER_USER, ENVIRONMENT, WORLDS, run_in, segment_named

pytestmark = pytest.mark.skipif(not os.path.isdir(shared_memory.FOLDER), reason="needs /dev/shm")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can have things of other users")

TAIL = "0123abcd"


def dead():
    """Return the token of a process that does not exist."""
    return str(this_owner()._replace(pid=999_999_999))


@pytest.fixture
def believed_dead(monkeypatch):
    """Return the token of an owner that is dead for this test alone; its workers don't end by themselves."""
    dead = this_owner()._replace(time_namespace="1")
    monkeypatch.setattr(orphans, "PATIENCE", 0)
    for module in (shared_memory, orphans):
        monkeypatch.setattr(module, "is_dead", lambda owner: owner == dead)
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


def test_a_worker_whose_consumer_is_dead_is_killed(believed_dead, worker):
    orphan = worker(command_of(believed_dead))
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


def test_a_process_that_cannot_be_killed_is_not_reported(believed_dead, worker, monkeypatch):
    def refuse(descriptor, number):
        raise PermissionError

    orphan = worker(command_of(believed_dead))
    monkeypatch.setattr(orphans, "DYING_SECONDS", 0)
    monkeypatch.setattr("signal.pidfd_send_signal", refuse)
    assert f"process {orphan.pid}" not in orphans.reclaim()


def test_a_process_that_is_about_to_end_is_not_reported(believed_dead, worker, monkeypatch):
    orphan = worker(command_of(believed_dead))
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


# Segments


def orphans_among(names, monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda folder: names)
    return shared_memory.reclaim(dry_run=True)


def test_a_segment_whose_owner_is_dead_is_removed(believed_dead):
    name = f"pescador-{believed_dead}-{TAIL}"
    with segment_named(name) as path:
        assert f"segment {name}" in orphans.reclaim(dry_run=True)
        assert os.path.exists(path)
        assert f"segment {name}" in orphans.reclaim()
        assert not os.path.exists(path)


@pytest.mark.parametrize(
    "name",
    [
        "other-{}-0123abcd",
        "pescador-{}",
        "pescador-{}-0123abc",
        "pescador-{}-0123abcd-",
        "pescador-{}-0123ABCD",
        "pescador-{}-a-b",
        "pescador-x{}-0123abcd",
        "pescador--{}-0123abcd",
    ],
)
def test_what_is_not_named_by_us_is_left_alone(name, believed_dead):
    name = name.format(believed_dead)
    with segment_named(name):
        assert f"segment {name}" not in orphans.reclaim(dry_run=True)


def test_a_segment_of_the_form_of_earlier_versions_is_left_alone(monkeypatch):
    assert orphans_among(["pescador-999999999-1-abcdef01"], monkeypatch) == []


@as_root
def test_a_segment_of_another_user_is_left_alone_even_by_root(believed_dead):
    name = f"pescador-{believed_dead}-{TAIL}"
    with segment_named(name, user=12345):
        assert f"segment {name}" not in orphans.reclaim()


def test_what_is_no_segment_is_left_alone(believed_dead, tmp_path):
    link, folder = (
        os.path.join(shared_memory.FOLDER, f"pescador-{believed_dead}-{tail}") for tail in (TAIL, "0" * 8)
    )
    os.symlink(tmp_path, link)
    os.mkdir(folder)
    try:
        assert shared_memory.reclaim() == []
        assert os.path.lexists(link)
    finally:
        os.remove(link)
        os.rmdir(folder)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, IsADirectoryError])
def test_a_segment_that_cannot_be_removed_is_not_reported(error, believed_dead, monkeypatch):
    def refuse(name):
        raise error

    with segment_named(f"pescador-{believed_dead}-{TAIL}"):
        monkeypatch.setattr(shared_memory._posixshmem, "shm_unlink", refuse)
        assert shared_memory.reclaim() == []


def test_a_name_that_cannot_be_removed_keeps_nobody_from_having_a_segment(monkeypatch):
    unlink = shared_memory._posixshmem.shm_unlink

    def refuse(name):
        unlink(name)
        raise PermissionError

    monkeypatch.setattr(shared_memory._posixshmem, "shm_unlink", refuse)
    fd, _ = shared_memory.create(4096, "")
    os.close(fd)


# No failure of looking reaches anybody

OF_PSUTIL = [
    OSError(5, "I/O error"),
    IndexError("list index"),
    psutil.AccessDenied(1),
    psutil.NoSuchProcess(1),
]
OF_THE_SYSTEM = [FileNotFoundError(2, "missing"), PermissionError(13, "hidden"), OSError(24, "too many")]
FAILURES = [
    *((psutil, name, error) for name in ("pids", "Process") for error in OF_PSUTIL),
    *((psutil.Process, name, error) for name in ("cmdline", "uids") for error in OF_PSUTIL),
    *((os, name, error) for name in ("listdir", "lstat", "readlink") for error in OF_THE_SYSTEM),
    (orphans, "watch", OF_THE_SYSTEM[2]),
]


@pytest.mark.parametrize(
    ("module", "name", "error"), FAILURES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_what_cannot_be_looked_at_is_left_alone(module, name, error, believed_dead, worker, monkeypatch):
    def fail(*arguments, **options):
        raise error

    orphan = worker(command_of(believed_dead))
    segment_of_it = f"pescador-{believed_dead}-{TAIL}"
    with segment_named(segment_of_it), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, fail)
        found = orphans.reclaim()
    assert (f"process {orphan.pid}" in found) == (name == "lstat")
    assert (f"segment {segment_of_it}" in found) == (name not in ("listdir", "lstat"))


# What is said


def test_what_is_reclaimed_goes_to_the_logger(monkeypatch, caplog, capfd):
    monkeypatch.setattr(orphans, "_reclaimed_by", 0)
    monkeypatch.setattr(orphans, "reclaim", lambda: ["segment x"])
    with caplog.at_level(logging.INFO, "pescador"):
        orphans.reclaim_once()
        orphans.reclaim_once()
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("pescador", "INFO", "reclaimed segment x, whose owner is dead")
    ]
    assert capfd.readouterr() == ("", "")


def test_clean_says_what_it_removed(believed_dead, capsys):
    name = f"pescador-{believed_dead}-{TAIL}"
    with segment_named(name) as path:
        assert main(["clean", "--dry-run"]) == 0
        assert f"would remove segment {name}\n" in capsys.readouterr().out
        assert os.path.exists(path)
        assert main(["clean"]) == 0
        assert f"removed segment {name}\n" in capsys.readouterr().out
        assert not os.path.exists(path)


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
    """Nor are segments, which may be shared among containers."""
    name = f"pescador-{dead()}-{TAIL}"
    with ParallelStreamer(Streamer(range, 10**6), start_method="spawn") as stream:
        items = iter(stream)
        next(items)
        pid = worker_pid(stream)
        shell = f'touch {shared_memory.FOLDER}/$1; shift; "$@" && ls {shared_memory.FOLDER}'
        place = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'mount -t tmpfs none {shared_memory.FOLDER} && exec "$@"',
            "sh",
        ]
        done = run_in(
            [*place, *WORLDS[world]],
            *["sh", "-c", shell, "sh", name, sys.executable, "-m", "pescador", "clean"],
        )
        assert (done.returncode, done.stdout) == (0, f"nothing is left behind\n{name}\n"), done.stderr
        assert psutil.pid_exists(pid)
        assert next(items) == 1


def test_another_user_cleans_what_is_its_own_alone():
    theirs, own = f"pescador-{dead()}-{TAIL}", f"pescador-{dead()}-{TAIL[::-1]}"
    shell = (
        f"mount -t tmpfs -o mode=1777 none {shared_memory.FOLDER} && cd {shared_memory.FOLDER} && "
        f"touch {theirs} {own} && chown 12345 {own} && cd / && "
        f'{" ".join(ANOTHER_USER)} "$@" && ls {shared_memory.FOLDER}'
    )
    run_in(ANOTHER_USER, sys.executable)
    done = run_in(["unshare", "--mount", "sh", "-c", shell, "sh"], sys.executable, "-m", "pescador", "clean")
    assert (done.returncode, done.stdout) == (0, f"removed segment {own}\n{theirs}\n"), done.stderr
