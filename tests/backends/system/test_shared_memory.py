"""Shared memory that nothing can leave behind."""

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
from pescador.backends.system.limits import Room
from pescador.backends.system.shared_memory import SPARED_BYTES, STEP_BYTES

from ...kinds import START_METHODS
from ...worlds import ENVIRONMENT, SHARED_MEMORY, in_a_container

KINDS = ["memfd", "memfd of the C library", "POSIX shared memory", "temporary file"]


@pytest.fixture(params=KINDS if sys.platform == "linux" else KINDS[2:])
def kind(request, monkeypatch):
    """Have segments be what they are on some system."""
    if request.param == KINDS[1]:
        monkeypatch.delattr(os, "memfd_create")
    elif request.param in KINDS[2:]:
        monkeypatch.setattr(shared_memory, "_memfd", lambda: None)
    return request.param


@pytest.fixture
def fd(kind):
    fd, _ = shared_memory.create(8192, "", copy_on_write=kind == "temporary file")
    yield fd
    os.close(fd)


def test_a_segment_is_private_to_the_user(fd):
    status = os.fstat(fd)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.getuid()


def test_a_segment_has_no_name(fd):
    assert os.fstat(fd).st_nlink == 0


def test_a_segment_is_not_inherited_by_programs(fd):
    assert not os.get_inheritable(fd)


def test_the_system_says_what_a_segment_is(kind):
    expected = "memfd" if "memfd" in kind else "POSIX shared memory"
    assert shared_memory.kind() == expected


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS cannot")
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
    """Through /proc, for there is no name."""
    with ParallelStreamer(Streamer([{"x": np.zeros(100_000)}] * 3), "shm") as stream:
        items = iter(stream)
        next(items)
        paths = []
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


# Too little memory


def have_free(n_bytes, monkeypatch):
    monkeypatch.setattr(shared_memory, "free_memory", lambda: Room(n_bytes, "of this test"))


TOLD = (
    "1,234,567 bytes were asked for",
    "but 2,469,133 bytes are free of this test, up to 16,777,216 of which are left to others.",
    "(ring_bytes).",
)


def test_the_system_is_not_asked_for_more_than_is_free(kind, monkeypatch):
    """It might kill some process for it."""
    asked = []
    monkeypatch.setattr(shared_memory, "_reserve", lambda fd, n_bytes, remedy: asked.append(n_bytes))
    have_free(2 * 1_234_567 - 1, monkeypatch)
    with pytest.raises(PescadorError) as caught:
        shared_memory.create(1_234_567, "Choose a smaller ring (ring_bytes).")
    assert all(part in str(caught.value) for part in TOLD)
    assert asked == []


def test_of_what_is_free_half_may_be_taken_at_least(kind, monkeypatch):
    have_free(2 * 1_234_567, monkeypatch)
    fd, memory = shared_memory.create(1_234_567, "")
    os.close(fd)
    memory[:] = 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_the_error_names_sizes_and_remedy_if_the_system_refuses(monkeypatch, number):
    """Somebody else was faster."""

    def full(fd, offset, length):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    rooms = iter([2 * 1_234_567, 2 * 1_234_567 - 1])
    monkeypatch.setattr(shared_memory, "free_memory", lambda: Room(next(rooms), "of this test"))
    with pytest.raises(PescadorError) as caught:
        shared_memory.create(1_234_567, "Choose a smaller ring (ring_bytes).")
    assert all(part in str(caught.value) for part in TOLD)
    assert isinstance(caught.value.__cause__, OSError)


def test_what_others_take_meanwhile_is_noticed(kind, monkeypatch):
    """Workers of a pool make their rings at the same time."""
    n_bytes = 3 * STEP_BYTES
    rooms = iter([n_bytes + SPARED_BYTES, n_bytes + SPARED_BYTES, STEP_BYTES + SPARED_BYTES // 8])
    monkeypatch.setattr(shared_memory, "free_memory", lambda: Room(next(rooms), "of this test"))
    before = os.listdir("/proc/self/fd")
    if hasattr(os, "posix_fallocate"):
        with pytest.raises(PescadorError, match="were asked for, but 6,291,456 bytes are free"):
            shared_memory.create(n_bytes, "")
        assert os.listdir("/proc/self/fd") == before


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


def test_without_file_descriptors_the_error_says_so(kind):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(PescadorError, match="ulimit -n"):
            shared_memory.create(4096, "")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# A container's /dev/shm

SCRIPT = """
import sys
import numpy as np
from pescador import ParallelStreamer, Streamer

def arrays(n, size, start):
    for i in range(n):
        yield {"x": np.full(size, start[-1] + i, np.uint8)}

for start_method in sys.argv[1:]:
    for n, size in ((5, 100), (20, 1 << 20), (2, 100_000_000)):
        start = np.full(size, 7, np.uint8)  # for workers, large arrays of a recipe lie in shared memory, too
        with ParallelStreamer(Streamer(arrays, n, size, start), start_method=start_method) as stream:
            for i, item in enumerate(stream):
                assert (item["x"] == 7 + i).all()
        assert i == n - 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
@pytest.mark.parametrize("mounts", SHARED_MEMORY.values(), ids=SHARED_MEMORY)
def test_dev_shm_does_not_matter(mounts):
    """However little there is of it, items and recipes of any size arrive."""
    done = subprocess.run(
        [*in_a_container(mounts), sys.executable, "-c", SCRIPT, *START_METHODS],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=200,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
