"""Shared memory that nothing can leave behind."""

import _posixshmem
import errno
import os
import resource
import stat
import subprocess
import sys

import numpy as np
import pytest

from pescador import ParallelStreamer, PescadorError, Streamer
from pescador.backends.system import shared_memory
from tests.kinds import ROOT, segments_of

pytestmark = pytest.mark.skipif(not os.path.isdir(shared_memory.FOLDER), reason="needs /dev/shm")


@pytest.fixture
def fd():
    fd, _ = shared_memory.create(8192, "")
    yield fd
    os.close(fd)


def test_a_segment_is_private_to_the_user(fd):
    status = os.fstat(fd)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.getuid()


def test_a_segment_has_no_name(fd):
    assert segments_of([os.getpid()]) == []
    assert os.fstat(fd).st_nlink == 0


def test_the_memory_of_a_segment_is_reserved(fd):
    assert os.fstat(fd).st_blocks * 512 >= 8192


def test_a_segment_is_zero_and_shared(fd):
    one, other = shared_memory.adopt(fd, 8192), shared_memory.adopt(fd, 8192)
    assert not one.any()
    one[5] = 7
    assert other[5] == 7
    assert one.flags.writeable


def test_what_is_written_into_a_private_mapping_stays_there(fd):
    shared, private, other = (shared_memory.adopt(fd, 8192, private=p) for p in (False, True, True))
    shared[:] = 1
    assert private[0] == 1
    private[0] = 2
    private[5000] = 2
    assert (shared == 1).all()
    assert (other == 1).all()
    assert (private[0], private[1], private[5000]) == (2, 1, 2)


def test_memory_outlives_the_descriptor():
    fd, memory = shared_memory.create(4096, "")
    os.close(fd)
    memory[:] = 3
    view = memory[100:200]
    del memory
    assert (view == 3).all()


def test_the_address_of_a_view():
    array = np.zeros(10, "i4")
    assert shared_memory.address(memoryview(array)[3:]) == array.ctypes.data + 12


OPEN = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.open(path, os.O_RDWR)
    except PermissionError:
        continue
    print("opened", path)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_can_open_neither_a_segment_nor_what_a_worker_has():
    """Through /proc, for there is no name; and by its name, while there is one for a moment."""
    name = os.path.join(shared_memory.FOLDER, "test-of-permissions")
    named = _posixshmem.shm_open("/test-of-permissions", os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    try:
        with ParallelStreamer(Streamer([{"x": np.zeros(100_000)}] * 3), "shm") as stream:
            items = iter(stream)
            next(items)
            paths = [name]
            for pid in (os.getpid(), stream.stats()["workers"][0]["pid"]):
                paths += [
                    f"/proc/{pid}/mem",
                    *(f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")),
                ]
                paths += [f"/proc/{pid}/map_files/{name}" for name in os.listdir(f"/proc/{pid}/map_files")]

            def become_nobody():
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)

            python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
            done = subprocess.run(
                [python, "-c", OPEN, *paths],
                preexec_fn=become_nobody,
                capture_output=True,
                text=True,
                cwd="/",
            )
            if done.returncode:
                pytest.skip(f"another user cannot run Python here: {done.stderr.strip()[-100:]}")
            assert done.stdout == ""
    finally:
        os.close(named)
        os.remove(name)


# Too little memory


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_the_error_names_sizes_and_remedy(monkeypatch, number):
    def full(fd, offset, length):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 7_654_321)
    with pytest.raises(PescadorError) as caught:
        shared_memory.create(1_234_567, "Choose a smaller ring (ring_bytes).")
    text = str(caught.value)
    for part in ("1,234,567 bytes", "7,654,321 bytes are free", "/dev/shm", "(ring_bytes)"):
        assert part in text
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_are_not_said_to_be_want_of_memory(monkeypatch):
    def broken(fd, offset, length):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="broken"):
        shared_memory.create(4096, "")


def test_a_reservation_that_a_signal_interrupts_is_tried_again(monkeypatch):
    calls = []

    def interrupted(fd, offset, length, reserve=os.posix_fallocate):
        calls.append(length)
        if len(calls) < 3:
            raise InterruptedError
        reserve(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", interrupted)
    os.close(shared_memory.create(4096, "")[0])
    assert calls == [4096] * 3


def test_without_file_descriptors_the_error_says_so():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(PescadorError, match="ulimit -n"):
            shared_memory.create(4096, "")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_how_much_is_free_is_unknown_without_the_folder(monkeypatch, tmp_path):
    assert shared_memory.free_bytes() > 0
    monkeypatch.setattr(shared_memory, "FOLDER", str(tmp_path / "none"))
    assert shared_memory.free_bytes() is None
    assert shared_memory.reclaim() == []


# A container's /dev/shm

SCRIPT = """
import numpy as np
from pescador import ParallelStreamer, PescadorError, Streamer

def arrays(n, size):
    for i in range(n):
        yield {"x": np.full(size, i, np.uint8)}

for size in (100, 1 << 20, 10 << 20):
    with ParallelStreamer(Streamer(arrays, 20, size)) as stream:
        assert [int(item["x"][-1]) for item in stream] == list(range(20))
print("default works")

with ParallelStreamer(Streamer(arrays, 1, 1 << 20), ring_bytes=1 << 30) as stream:
    try:
        list(stream)
    except PescadorError as error:
        print(error)
"""


def in_a_container(*command):
    """Run a command with 64 MB of shared memory."""
    shell = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, "sh", *command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )


def test_a_small_dev_shm_is_a_clear_error_only_for_a_ring_that_is_too_large():
    try:
        refused = in_a_container("true").stderr
    except FileNotFoundError as error:
        refused = str(error)
    if refused:
        assert os.environ.get("CI") != "true", refused
        pytest.skip(f"no namespace with a small /dev/shm here: {refused.strip()}")
    done = in_a_container(sys.executable, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    works, error = done.stdout.splitlines()
    assert works == "default works"
    for part in ("1,073,741,824 bytes", "bytes are free", "ring_bytes", "--shm-size"):
        assert part in error
