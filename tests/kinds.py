"""Every backend and start method, for tests that hold on all of them, and running scripts."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pescador import ParallelStreamer
from pescador.backends.processes.launcher import START_METHODS
from pescador.backends.system.pids import watch

BACKENDS = ("serial", "thread", "shm", "zmq")

PROCESSES = {
    f"{backend}-{method}": {"backend": backend, "start_method": method}
    for backend in ("shm", "zmq")
    for method in START_METHODS
}
KINDS = {"serial": {"backend": "serial"}, "thread": {"backend": "thread"}, **PROCESSES}

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_background = pytest.mark.parametrize("backend", BACKENDS[1:])
process_backends = pytest.mark.parametrize("backend", BACKENDS[2:])
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_process = pytest.mark.parametrize("kind", PROCESSES.values(), ids=PROCESSES)

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0  # seconds that a test waits for what should take one at most


def worker_pid(stream: ParallelStreamer) -> int:
    """Return the process of the only worker."""
    return stream.stats()["workers"][0]["pid"]


class Gone:
    """Watches processes, so that a test can wait until they have ended."""

    def __init__(self, pids):
        self.fds = {}
        for pid in pids:
            fd = watch(pid)
            if fd is not None:  # it has ended
                self.fds[fd] = pid

    def wait(self, timeout):
        """Return the pids of those that have not ended after so many seconds."""
        poll = select.poll()
        for fd in self.fds:
            poll.register(fd, select.POLLIN)
        while self.fds:
            ended = poll.poll(timeout * 1000)
            if not ended:
                break
            for fd, _ in ended:
                poll.unregister(fd)
                os.close(fd)
                del self.fds[fd]
        left = sorted(self.fds.values())
        for fd in self.fds:
            os.close(fd)
        return left


class Script:
    """A script of a user, run in a process group of its own."""

    def __init__(self, folder, text, *arguments):
        path = folder / "script.py"
        path.write_text(text)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("PYTHONUNBUFFERED", None)
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()  # if it has not ended yet
        self.process.communicate()

    def wait_for(self, line):
        """Wait until the script prints a line."""
        got = self.process.stdout.readline()
        if got != line + "\n":
            self.process.kill()
            raise AssertionError(f"{got!r} instead of {line!r}; {self.process.stderr.read()}")

    def offspring(self):
        """Return what watches all processes that the script has started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        assert children
        return Gone(child.pid for child in children)

    def signal_group(self, number):
        """Send a signal to the script and everything it started, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)

    def finish(self):
        """Wait for the end, and return exit code, output and errors."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


def segments_of(pids):
    """Return our shared memory that these processes have mapped: a number, and what Linux calls it."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps") as file:
            found |= {*re.findall(r" (\d+) +(/(?:memfd:|dev/shm/)pescador.*)", file.read())}
    return found
