"""Looking at processes by their number, and only where that is the number of the same process."""

import os
import subprocess
import sys

import psutil
import pytest

from pescador.backends.system.owner import is_dead, start_time, this_owner
from pescador.backends.system.pids import offspring, pids_are_ours, process_state

linux = pytest.mark.skipif(sys.platform != "linux", reason="only there psutil looks in /proc")


@linux
@pytest.mark.parametrize(
    ("link", "status"),
    [
        (None, None),
        ("{pid}", None),
        ("1", "NSpid:\t1\n"),
        ("1", "NSpid:\t1\t{pid}\n"),  # /proc of an outer namespace
        ("{pid}", "NSpid:\t{pid}\t{pid}\n"),  # the same number in both, by chance
        ("{pid}", "NSpid:\t{pid}\t1\n"),
    ],
)
def test_a_proc_of_other_processes_is_not_asked(link, status, dead, monkeypatch, tmp_path):
    pid = os.getpid()
    if link is not None:
        (tmp_path / "self").symlink_to(link.format(pid=pid))
        folder = tmp_path / link.format(pid=pid)
        folder.mkdir()
        (folder / "stat").write_text("1 (x) " + " ".join(["7"] * 50))
        if status is not None:
            (folder / "status").write_text("Name:\tx\n" + status.format(pid=pid))
    this_owner()
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert not pids_are_ours()
    assert start_time(pid) == ""
    assert not is_dead(dead)


@linux
def test_a_proc_that_does_not_tell_of_namespaces_is_taken_for_ours(monkeypatch, tmp_path):
    """As in a sandbox that stands in for the kernel."""
    (tmp_path / "self").symlink_to(str(os.getpid()))
    folder = tmp_path / str(os.getpid())
    folder.mkdir()
    (folder / "status").write_text("Name:\tx\n")
    (folder / "stat").write_text("1 (a) b) " + " ".join(map(str, range(3, 40))))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert pids_are_ours()
    assert start_time(os.getpid()) == "t22"
    (folder / "stat").write_text("of another form")
    assert start_time(os.getpid()) == ""


@linux
def test_of_processes_in_a_proc_of_others_nothing_is_said_and_none_is_ended(monkeypatch, tmp_path):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert process_state(child.pid) != "in an unknown state"
        assert [process.pid for process in offspring(os.getpid()) if process.pid == child.pid]
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
        assert process_state(child.pid) == "in an unknown state"
        assert offspring(os.getpid()) == []


@pytest.mark.parametrize("error", [OSError(13, "hidden"), IndexError("list index"), psutil.AccessDenied(1)])
def test_a_psutil_that_stumbles_harms_nobody(error, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(psutil, "Process", fail)
    assert process_state(os.getpid()) == "in an unknown state"
    assert offspring(os.getpid()) == []
