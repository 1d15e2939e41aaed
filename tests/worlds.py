"""Namespaces, mounts, users and control groups that a command runs in, for tests of what it sees there."""

import contextlib
import functools
import os
import re
import secrets
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

from pescador.backends.system import limits

from .kinds import PATIENCE, ROOT

PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}

ANOTHER_USER = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]

WORLDS = {
    "no /proc": ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"],
    "/proc of another pid namespace": ["unshare", "--pid", "--fork"],
    "a pid namespace": ["unshare", "--pid", "--fork", "--mount-proc"],
    "a time namespace": ["unshare", "--time", "--fork", "--boottime", "1000"],
    "hidden processes of others": [
        *["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"],
        *ANOTHER_USER,
    ],
}


def run_in(world, *command, **options):
    """Run a command there, and return what it said; skip where that cannot be."""
    refused = _refused(tuple(world), "python" if command[0] == sys.executable else "true")
    if refused:
        # Another user may be kept from this interpreter, wherever tests run.
        must_work = os.environ.get("CI") == "true" and os.getuid() == 0 and "setpriv" not in world
        assert not must_work, refused
        pytest.skip(f"this world cannot be made here: {refused}")
    return subprocess.run(
        [*world, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=100, cwd="/", **options
    )


@functools.cache
def _refused(world, what):
    probe = "import subprocess, sys, numpy; subprocess.run([sys.executable, '-c', ''], check=True)"
    command = ["true"] if what == "true" else [sys.executable, "-c", probe]
    if os.getuid():
        return "only root can"
    try:
        done = subprocess.run([*world, *command], capture_output=True, text=True, env=ENVIRONMENT, cwd="/")
    except FileNotFoundError as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}")[-200:] if done.returncode else ""


# Mounts

# What may be in place of /dev/shm, which multiprocessing needs.
SHARED_MEMORY = {
    "1 MB": "mount -t tmpfs -o size=1m none /dev/shm",
    "read-only": "mount -t tmpfs -o ro,mode=000 none /dev/shm; test ! -w /dev/shm",
    "not there": """
mount -t tmpfs none /dev/shm
for device in null zero urandom; do touch /dev/shm/$device; mount --bind /dev/$device /dev/shm/$device; done
mount --rbind /dev/shm /dev
test ! -e /dev/shm
""",
}


def in_a_container(mounts):
    """Return what runs a command with these mounts, which nothing else sees; skip where that cannot be."""
    command = ["unshare", "-rm", "sh", "-ec", f'{mounts}\nexec "$@"', "sh"]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True)
        refused = done.stderr.strip() or (f"exit code {done.returncode}" if done.returncode else "")
    except FileNotFoundError as error:
        refused = str(error)
    if refused:
        assert os.environ.get("CI") != "true", refused
        pytest.skip(f"nothing can be mounted here: {refused}")
    return command


# Control groups


class ControlGroup(NamedTuple):
    """A control group whose memory may be limited: what runs a command there, its folder, and two files."""

    command: list[str]
    folder: str
    limit: str
    used: str

    @property
    def leave(self):
        """Return the text of a function that limits the group."""
        return f"""
def leave(n_bytes):
    "Have so many bytes be free."
    with open({self.used!r}) as used, open({self.limit!r}, "w") as limit:
        limit.write(str(int(used.read()) + n_bytes))
"""


@contextlib.contextmanager
def made_up_group():
    """Have a control group that is files of ours: nothing is taken into account, and its limit may be any."""
    if limits.CGROUPS not in limits.control_groups("memory"):
        pytest.skip("there are no control groups of version 2 here")
    folder = limits.CGROUPS
    limit, used = f"{folder}/memory.max", f"{folder}/memory.current"
    command = in_a_container(f"mount -t tmpfs none {folder}; echo 0 > {used}")
    yield ControlGroup(command, folder, limit, used)


@contextlib.contextmanager
def real_group():
    """Make a control group, within that of this process or beside it, where nothing may run out of memory."""
    name, refused = f"pescador-test-{secrets.token_hex(8)}", "there is none"
    versions = (
        ("memory.max", "memory.current", "memory.events"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
    )
    for around in limits.control_groups("memory"):
        folder = f"{around}/{name}"
        try:
            os.mkdir(folder)
        except OSError as error:
            refused = str(error)
            continue
        try:
            for version in versions:
                limit, used, events = (f"{folder}/{file}" for file in version)
                command = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
                if os.path.exists(limit):
                    done = subprocess.run([*command, "true"], capture_output=True, text=True)
                    refused = done.stderr.strip()
                    if not refused:
                        yield ControlGroup(command, folder, limit, used)
                        with open(events) as file:
                            assert re.search(r"^oom_kill (\d+)$", file.read(), re.MULTILINE)[1] == "0"
                        return
        finally:
            _remove(folder)
    pytest.skip(f"no control group can be made here: {refused}")


GROUPS = {"real": real_group, "made up": made_up_group}
every_group = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)


def _remove(folder):
    """Remove a control group as soon as the last process has left it."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return os.rmdir(folder)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
