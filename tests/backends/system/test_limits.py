"""How much memory may still be taken: the tightest of all limits, on any system and in any container."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from pescador.backends.system import limits

from ...worlds import ENVIRONMENT, WORLDS, every_group, run_in

MACHINE = 10**12  # bytes that are free there
NO_LIMIT = 2**63 - 4096  # what version 1 says then

V2 = {
    "group": "0::{}",
    "root": "",
    "max": "memory.max",
    "used": "memory.current",
    "stat": "anon 9\nfile 99\ninactive_anon 9\nactive_anon 9\ninactive_file 40\nactive_file 2\nshmem 9",
}
V1 = {
    "group": "7:memory:{}",
    "root": "/memory",
    "max": "memory.limit_in_bytes",
    "used": "memory.usage_in_bytes",
    # Fields without 'total' leave out the groups within this one.
    "stat": "cache 9\ninactive_file 9\nactive_file 9\ntotal_inactive_file 40\ntotal_active_file 2",
}
every_version = pytest.mark.parametrize("version", [V1, V2], ids=["1", "2"])


class System:
    """A system whose files are those that a test writes."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, path, contents):
        path = self.folder / path.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else f"{contents}\n".encode())

    def open(self, path, **options):
        return open(path if path.startswith(str(self.folder)) else f"{self.folder}{path}", **options)

    def be_in(self, version, path):
        """Have this process be in a control group."""
        self.write("/proc/self/cgroup", version["group"].format(path))

    def limit(self, version, path, limit, used=0, stat=""):
        """Have a control group."""
        folder = f"/cgroup{version['root']}{path}"
        for file, contents in ((version["max"], limit), (version["used"], used), ("memory.stat", stat)):
            self.write(f"{folder}/{file}", contents)
        return f"{self.folder}{folder}"


@pytest.fixture
def system(monkeypatch, tmp_path):
    system = System(tmp_path)
    monkeypatch.setattr(limits, "CGROUPS", f"{tmp_path}/cgroup")
    monkeypatch.setattr(limits, "open", system.open, raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))
    return system


OF_THE_MACHINE = (MACHINE, "of this machine")


def test_without_control_groups_it_is_what_the_machine_has(system):
    assert limits.free_memory() == OF_THE_MACHINE


@every_version
def test_a_control_group_leaves_its_limit_without_what_is_used_but_for_cached_files(version, system):
    system.be_in(version, "/job")
    folder = system.limit(version, "/job", 5000, 1500, version["stat"])
    where = f"of the 5,000 of the container or job (control group {folder})"
    assert limits.free_memory() == (3542, where)


@every_version
def test_a_control_group_that_uses_more_than_its_limit_has_nothing_free(version, system):
    """The limit may have been lowered."""
    system.be_in(version, "/job")
    system.limit(version, "/job", 5000, 6000)
    assert limits.free_memory().n_bytes == 0


@every_version
@pytest.mark.parametrize("tightest", ["/a/b/c", "/a/b", "/a", ""])
def test_of_nested_control_groups_the_tightest_counts(version, tightest, system):
    """That is the one with the least that is free, not the one with the lowest limit."""
    system.be_in(version, "/a/b/c")
    for path in ("/a/b/c", "/a/b", "/a", ""):
        system.limit(version, path, 10_000, 1000)
    folder = system.limit(version, tightest, 20_000, 19_999)
    assert limits.free_memory() == (1, f"of the 20,000 of the container or job (control group {folder})")


@every_version
def test_a_group_beside_that_of_this_process_does_not_count(version, system):
    system.be_in(version, "/a/b")
    system.limit(version, "/a/c", 5000)
    system.limit(version, "/b", 5000)
    assert limits.free_memory() == OF_THE_MACHINE


def test_the_tightest_of_both_versions_counts(system):
    system.write("/proc/self/cgroup", "3:cpu:/x\n7:hugetlb,memory:/a\n0::/b")
    system.limit(V1, "/a", 5000)
    system.limit(V2, "/b", 6000)
    system.limit(V1, "/x", 1)
    assert limits.free_memory().n_bytes == 5000
    system.limit(V2, "/b", 4000)
    assert limits.free_memory().n_bytes == 4000


@every_version
@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../other", "/gone (deleted)", "/with:colon"])
def test_a_container_may_see_its_own_group_as_the_root(version, path, system):
    system.be_in(version, path)
    system.limit(version, "", 5000)
    assert limits.free_memory().n_bytes == 5000


@every_version
def test_the_machine_may_have_less_than_the_control_group(version, system):
    system.be_in(version, "/job")
    system.limit(version, "/job", 2 * MACHINE)
    assert limits.free_memory() == OF_THE_MACHINE


@every_version
@pytest.mark.parametrize("limit", ["max", NO_LIMIT, "", "unlimited", b"\xff\xfe"])
def test_a_control_group_may_have_no_limit(version, limit, system):
    system.be_in(version, "/job")
    system.limit(version, "/job", limit)
    assert limits.free_memory() == OF_THE_MACHINE


@every_version
@pytest.mark.parametrize("missing", ["max", "used"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_limit_of_which_a_file_is_missing_does_not_count(version, missing, is_folder, system):
    system.be_in(version, "/job")
    path = f"{system.limit(version, '/job', 5000)}/{version[missing]}"
    os.remove(path)
    if is_folder:
        os.mkdir(path)
    assert limits.free_memory() == OF_THE_MACHINE


@every_version
@pytest.mark.parametrize("stat", [None, "", "inactive_file", "inactive_file x", "a b c", b"\xff 1\n"])
def test_without_numbers_of_what_is_cached_all_that_is_used_counts(version, stat, system):
    system.be_in(version, "/job")
    folder = system.limit(version, "/job", 5000, 1000, stat or "")
    if stat is None:
        os.remove(f"{folder}/memory.stat")
    assert limits.free_memory().n_bytes == 4000


@pytest.mark.parametrize("contents", ["", "nonsense", "0:/", "0::/\n\n7:memory", b"0::/\xff\n"])
def test_control_groups_that_are_not_as_expected_are_none(contents, system):
    system.write("/proc/self/cgroup", contents)
    assert limits.free_memory() == OF_THE_MACHINE


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), psutil.AccessDenied(), AttributeError("none")])
def test_where_nothing_can_be_told_nothing_is_refused(error, system, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    assert limits.free_memory() == (sys.maxsize, "as far as can be told")
    system.be_in(V2, "/job")
    system.limit(V2, "/job", 5000)
    assert limits.free_memory().n_bytes == 5000


@every_version
def test_each_controller_has_groups(version, system):
    system.write("/proc/self/cgroup", "2:pids,cpu:/p/q\n1:memory:/m" if version is V1 else "0::/p/q")
    root = f"{system.folder}/cgroup{'/pids' if version is V1 else ''}"
    assert list(limits.control_groups("pids")) == [f"{root}/p/q", f"{root}/p", root]


@pytest.mark.parametrize(
    ("contents", "number"), [("17\n", 17), ("0", 0), ("max\n", None), ("", None), (None, None)]
)
def test_the_number_in_a_file(contents, number, tmp_path):
    if contents is not None:
        (tmp_path / "file").write_text(contents)
    assert limits.number_in(str(tmp_path / "file")) == number


# Real systems

FREE = "from pescador.backends.system.limits import free_memory; print(*free_memory(), sep='\\n')"


@every_group
def test_the_limit_of_a_group_holds(group):
    with group() as group:
        script = f"{group.leave}leave(50 << 20)\n{FREE}"
        done = subprocess.run(
            [*group.command, sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stderr
        n_bytes, where = done.stdout.splitlines()
    assert 20 << 20 < int(n_bytes) <= 50 << 20  # an interpreter takes some itself
    assert f"(control group {group.folder})" in where


def test_without_proc_nothing_is_refused():
    done = run_in(WORLDS["no /proc"], sys.executable, "-c", FREE)
    assert (done.returncode, done.stdout) == (0, f"{sys.maxsize}\nas far as can be told\n"), done.stderr
