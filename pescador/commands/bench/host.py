"""Measuring one backend in a process of its own, a *host*.

:func:`host` runs in it, and :class:`Host` is what the command sees of it. They talk in lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import islice

import psutil

from ...exceptions import PescadorError
from ...parallel import ParallelStreamer
from .report import Answer
from .works import compute, stream_of

__all__ = ["Host", "host"]

WARM_UP = 0.5
"""How long items are taken before they count, as a share of the time in which they do."""


def host(backend: str, n_workers: int) -> None:
    """Open streams and measure them: each line of stdin is a question, as JSON, and has an answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the stream prints
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    stream: ParallelStreamer[object] = ParallelStreamer([])
    try:
        for line in sys.stdin:
            question = json.loads(line)
            try:
                if "name" in question:
                    # The earlier one is closed last, so that the process that forks the workers, which pools
                    # share, goes on running.
                    earlier, recipe = stream, stream_of(question["name"], n_workers)
                    stream = ParallelStreamer(recipe, backend, n_workers, timeout=1)
                    answer = _first(stream)
                    earlier.close()
                else:
                    answer = _slice(stream, **question)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        stream.close()


def _first(stream: ParallelStreamer[object]) -> Answer:
    items = list(stream.iterate(1))
    if not items:
        raise PescadorError("the stream has no items")
    return {"item_bytes": _size(items[0])}


def _size(item: object) -> int | None:
    try:
        return len(pickle.dumps(item, 5))
    except Exception:  # it cannot be pickled; threads don't mind
        return None


def _slice(stream: ParallelStreamer[object], seconds: float, step: float | None) -> Answer:
    use = compute if step is None else _waiter(step)
    items = stream.cycle()
    try:
        _consume(items, use, WARM_UP * seconds)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        cpu = _cpu_seconds(processes)
        n, elapsed = _consume(items, use, seconds)
        cpu = _cpu_seconds(processes) - cpu
        return {"items": n, "seconds": elapsed, "cpu_seconds": cpu, "memory_bytes": _memory(processes)}
    finally:
        items.close()


def _consume(items: Iterator[object], use: Callable[[object], object], seconds: float) -> tuple[int, float]:
    """Use items for so many seconds, and at least one; return how many they were, and how long it took."""
    n, chunk, started = 0, 1, time.perf_counter()
    now = started
    while now - started < seconds:
        before, expected = now, n + chunk
        for item in islice(items, chunk):
            use(item)
            n += 1
        if n < expected:
            raise PescadorError("the stream gave items once, but none when it was opened again")
        now = time.perf_counter()
        if now - before < 0.001:  # tiny items: asking for the time would take longer than they do
            chunk *= 2
    return n, now - started


def _waiter(step: float) -> Callable[[object], None]:
    """Return a consumer that waits so many seconds for an item, but not for less than a millisecond."""
    due = 0.0

    def wait(_: object) -> None:
        nonlocal due
        due += step
        if due >= 0.001:
            started = time.perf_counter()
            time.sleep(due)
            due = max(due - (time.perf_counter() - started), -0.001)  # a long pause makes no later step short

    return wait


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            if sys.platform == "linux":  # in nanoseconds, where psutil has hundredths of a second
                total += time.clock_gettime(~process.pid << 3 | 2)  # as clock_getcpuclockid() computes it
            else:
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _memory(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.uss)
    return total


class Host:
    """A process that runs :func:`host`, as the command sees it."""

    def __init__(self, backend: str, n_workers: int) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from pescador.commands.bench.host import host; "
        # In a session of its own: Ctrl-C reaches the command alone, which then ends its hosts.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code + f"host({backend!r}, {n_workers})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, **question: object) -> None:
        """Have a stream opened (`name`), or a slice of it measured (`seconds`, `step`)."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer tells
            print(json.dumps(question), file=self._process.stdin, flush=True)

    def answer(self) -> Answer:
        """Return the answer; it has the key ``error`` if something went wrong."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        return {"error": f"the process ended with exit code {self._process.wait()}"}

    def terminate(self) -> None:
        """Tell it to close its pool and end."""
        self._process.terminate()

    def close(self) -> None:
        """Wait until it has ended."""
        with self._process as process:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it and its workers at once, if it still runs."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:  # which closes its pipes
            self._process.wait()
