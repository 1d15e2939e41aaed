"""Namespaces, mounts and users in which a command runs, for tests of what the library sees there."""

import contextlib
import functools
import os
import subprocess
import sys

import pytest

from pescador.backends.system import shared_memory

from .kinds import ROOT

PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}

ANOTHER_USER = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]

# Each with a /dev/shm of its own.
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


@contextlib.contextmanager
def segment_named(name, user=None):
    """Have a segment of this name, of this user."""
    path = os.path.join(shared_memory.FOLDER, name)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        if user is not None:
            os.chown(path, user, user)
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
