"""``python -m pescador doctor``: whether every backend can run on this machine.

Limits are read from the system, and a shortage is a warning. What decides is a *trial*: for every backend
and start method, a process of its own opens a stream and takes an item. Trials run side by side, and one
that takes too long is killed together with all that it started, so nothing can hang, whatever is broken.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil

from .. import backends
from ..backends.processes.interpreter import interpreter_environment, python_command
from ..backends.processes.launcher import START_METHODS, check_start_method
from ..backends.shm.sender import MAX_RING_BYTES
from ..backends.system import orphans, pids, shared_memory
from ..backends.system.limits import control_groups, free_memory, number_in
from ..core import Streamer
from ..interrupts import interrupts_held
from ..parallel import ParallelStreamer

__all__ = ["Finding", "examine", "run", "trial"]

# Below these, several workers, or those of several programs, may find too little.
FEW_DESCRIPTORS = 256
FEW_PROCESSES = 64
LITTLE_MEMORY = 1 << 30
UNKNOWN = 1 << 60  # bytes: so much stands for no limit


class Finding(NamedTuple):
    """One line of the report."""

    state: Literal["ok", "warn", "fail"]
    name: str
    figure: str
    remedy: str = "See the limits above"

    def __str__(self) -> str:
        line = f"{self.state:5} {self.name:16} {self.figure}"
        if self.state == "ok":
            return line
        return f"{line}{'' if line[-1] in '.?' else '.'} {self.remedy}"


def run(timeout: float) -> int:
    """Print what is found out, and return the exit code: 1 if a backend cannot run."""
    failed = False
    with contextlib.closing(examine(timeout)) as findings:  # which ends the trials that still run
        for finding in findings:
            print(finding, flush=True)
            failed |= finding.state == "fail"
    return int(failed)


def examine(timeout: float) -> Generator[Finding]:
    """Check everything, and give a trial so many seconds."""
    checks: dict[str, Callable[[str], Finding]] = {
        "system": _system,
        "workers": _platform,
        "memory": _memory,
        "descriptors": _descriptors,
        "processes": _processes,
        "leftovers": _leftovers,
    }
    for name, check in checks.items():
        try:
            finding = check(name)
        except Exception as error:  # /proc or a limit is missing, hidden or of another form
            remedy = "What the trials below say counts"
            finding = Finding("warn", name, f"unknown: {type(error).__name__}: {error}", remedy)
        yield finding
    yield from _trials(timeout)


def _system(name: str) -> Finding:
    # Not platform.platform(), which may start another program.
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Finding("ok", name, f"{system}, Python {platform.python_version()}")


def _memory(name: str) -> Finding:
    free, where = free_memory()
    found = [(free, f"{_size(free)} free {where}")] if free < UNKNOWN else []
    limit = _soft_limit("RLIMIT_AS")
    if limit is not None:
        found.append((limit, f"{_size(limit)} of addresses for a process (ulimit -v)"))
    n_bytes, figure = min(found, default=(0, "nobody can tell how much is free"))
    remedy = (
        f"A ring takes up to {_size(MAX_RING_BYTES)} for each worker. Raise the limit, or use fewer workers "
        "and a smaller ring_bytes"
    )
    return Finding("warn" if n_bytes < LITTLE_MEMORY else "ok", name, figure, remedy)


def _platform(name: str) -> Finding:
    figure = f"start by {check_start_method(None)}, share memory by {shared_memory.kind()}, and are "
    watched = pids.watched_by()
    if watched is None:
        remedy = "The death of a worker is noticed by the end of its connection"
        return Finding("ok" if sys.platform == "win32" else "warn", name, figure + "not watched", remedy)
    return Finding("ok", name, f"{figure}watched by {watched}")


def _descriptors(name: str) -> Finding:
    limit = _soft_limit("RLIMIT_NOFILE")
    if limit is None:
        return Finding("ok", name, "no limit")
    figure = f"{limit:,} may be open in a process (ulimit -n)"
    remedy = "A worker takes up to 16 descriptors. Raise it: ulimit -n 4096"
    return Finding("warn" if limit < FEW_DESCRIPTORS else "ok", name, figure, remedy)


def _processes(name: str) -> Finding:
    found = []
    for folder in control_groups("pids"):
        used, limit = number_in(f"{folder}/pids.current"), number_in(f"{folder}/pids.max")
        if used is not None and limit is not None:
            found.append((limit - used, f"{used:,} of {limit:,} in the container or job (cgroup)"))
    limit = _soft_limit("RLIMIT_NPROC")
    if limit is not None and os.geteuid():  # it does not hold for root
        used = sum(_threads_of_this_user())
        found.append((limit - used, f"{used:,} of {limit:,} of this user (ulimit -u)"))
    if not found:
        return Finding("ok", name, "no limit")
    room, figure = min(found)
    remedy = "A worker is a process of two threads or more. Raise it (ulimit -u, docker run --pids-limit)"
    return Finding("warn" if room < FEW_PROCESSES else "ok", name, f"{figure}, threads included", remedy)


def _leftovers(name: str) -> Finding:
    found = orphans.reclaim(dry_run=True)
    if not found:
        return Finding("ok", name, "none")
    return Finding("warn", name, ", ".join(found), "Remove them: python -m pescador clean")


def _threads_of_this_user() -> Iterator[int]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == os.getuid():
                yield process.num_threads()


def _soft_limit(name: str) -> int | None:
    """Return a limit of this process, None if there is none."""
    try:
        import resource
    except ImportError:  # pragma: no cover  # Windows
        return None
    limit = resource.getrlimit(getattr(resource, name))[0]
    return None if limit == resource.RLIM_INFINITY else limit


# Trials


def _trials(timeout: float) -> Iterator[Finding]:
    kinds: list[tuple[str, str | None]] = [("shm", method) for method in START_METHODS]
    # A cluster is not this machine.
    kinds += [(name, None) for name in backends.names() if name not in ("shm", "ray")]
    started = time.monotonic()
    running: list[tuple[str, subprocess.Popen[str] | Exception]] = []
    try:
        for backend, method in kinds:
            name = backend if method is None else f"{backend}, {method}"
            with interrupts_held():
                running.append((name, _start_trial(backend, method)))
        for name, process in running:
            yield _verdict(name, process, timeout, started + timeout)
    finally:
        with interrupts_held():
            for _, process in running:
                if isinstance(process, subprocess.Popen):
                    _kill(process)


def _start_trial(backend: str, method: str | None) -> subprocess.Popen[str] | Exception:
    try:
        return subprocess.Popen(
            python_command(
                f"from pescador.commands.doctor import trial; sys.exit(trial({backend!r}, {method!r}))"
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that all of it can be killed
            env=interpreter_environment(),
        )
    except Exception as error:
        return error


def _verdict(
    name: str, process: subprocess.Popen[str] | Exception, timeout: float, deadline: float
) -> Finding:
    if isinstance(process, Exception):
        return Finding("fail", name, f"cannot start a process: {process}")
    try:
        output, _ = process.communicate(timeout=max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        remedy = "Is the machine busy, or Python on a slow disk? Allow more: --timeout 60"
        return Finding("fail", name, f"no item came in {timeout:g} s", remedy)
    last = output.strip().rpartition("\n")[2]
    if process.returncode == 0:
        return Finding("ok", name, last)
    return Finding("fail", name, last or f"the trial ended with exit code {process.returncode}")


def _kill(process: subprocess.Popen[str]) -> None:
    """End a trial that still runs, with its workers."""
    assert process.stdout is not None
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, pids.KILL)
            else:
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel does not let it go
            process.wait(5)
    process.stdout.close()


def trial(backend: str, method: str | None) -> int:
    """Take an item from a stream, print how long that took or why it failed, and return the exit code."""
    orphans.reclaim_nothing()  # the doctor only looks
    started = time.monotonic()
    options: dict[str, Any] = {} if method is None else {"start_method": method}
    try:
        with ParallelStreamer(Streamer(_one_item), backend, timeout=1, **options) as stream:
            (item,) = stream
        if not np.array_equal(item["x"], next(_one_item())["x"]):
            raise ValueError("the item that came is another than the one that was sent")
    except Exception as error:
        print(f"{type(error).__name__}: {error}".partition("\n")[0])
        return 1
    print(f"an item of {_size(item['x'].nbytes)} came in {time.monotonic() - started:.2f} s")
    return 0


def _one_item() -> Iterator[dict[str, np.ndarray]]:
    yield {"x": np.arange(1 << 17)}


def _size(n_bytes: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1024:.0f} KiB"
