"""Which backend suits a stream: ``python -m pescador bench [module:name]``.

works.py     the streams that are compared
host.py      measuring one backend in a process of its own, a *host*
report.py    ranks, tables, advice, files

Each backend has a host, so that neither the memory nor a crash of one reaches another. For each work, the
hosts open their pools side by side. Then they are measured in turn, one at a time, in several rounds:
whatever slows the machine down for some seconds slows all of them. A *slice* is a new epoch on the pool
that is there already; it lasts a fixed time, of which the first part does not count.

The consumer spends a *step* on each item, or the background would have nothing to overlap with. Mostly
it waits, as for an accelerator: that takes no CPU time, and leaves Python's lock free.

CPU time and memory are those of the host and of all processes below it. Memory is read at the end of
each slice, while the items that were made ahead are there, as PSS (memory that processes share is
divided among them, so it is counted once), or as USS where the system does not tell the PSS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ... import __version__, backends
from ...exceptions import ParameterError, PescadorError
from ...interrupts import interrupts_held
from ...parallel import ParallelStreamer
from . import report
from .host import Host
from .report import Answer, Comparison, Row
from .works import WORKS, stream_of

__all__ = ["FULL", "QUICK", "add_arguments", "run"]

FULL = (5, 1.0)  # rounds, and seconds of a slice
QUICK = (5, 0.06)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "stream",
        nargs="?",
        metavar="module:name",
        help="a Streamer or a mux of yours, or a function that returns one; if not given, six kinds of ours",
    )
    parser.add_argument("--quick", action="store_true", help="short slices: under 20 s for all of ours")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="workers of each backend")
    parser.add_argument(
        "--step",
        type=float,
        metavar="MS",
        help="with a stream of yours: milliseconds that your training takes for an item; if not given, as "
        "long as making one takes",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--csv", metavar="FILE", help="write the tables to this file")
    parser.add_argument("--plot", metavar="FILE", help="draw a figure; needs matplotlib")


def run(options: argparse.Namespace) -> int:
    """Run the command, and return the exit code."""
    try:
        _check(options)
    except PescadorError as error:
        print(f"pescador bench: {error}", file=sys.stderr)
        return 2
    rounds, seconds = QUICK if options.quick else FULL
    kinds = _available()
    names = [options.stream] if options.stream else list(WORKS)
    facts = {
        "pescador": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "workers": options.workers,
    }
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"medians of {rounds} slices of {seconds:g} s; {report.RANKS}", flush=True)
    progress = _Progress(len(names) * len(kinds) * (rounds + 1))
    hosts: dict[str, Host] = {}
    comparisons: list[Comparison] = []
    interrupted = False
    try:
        for kind in kinds:
            with interrupts_held():
                hosts[kind] = Host(kind, options.workers)
        for name in names:
            step = WORKS[name].step if name in WORKS else options.step and options.step / 1000
            found = Comparison(name, [Row(kind) for kind in kinds], step)
            comparisons.append(found)
            try:
                _compare(found, hosts, rounds, seconds, progress)
            finally:
                progress.clear()
                if any(row.slices or row.error for row in found.rows):
                    print(f"\n{found.title()}\n{found.table()}", flush=True)
                if all(row.error for row in found.rows):
                    print(found.rows[0].traceback, end="", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
        print("\nInterrupted: this is what is known so far.")
    finally:
        _end(list(hosts.values()))
    comparisons = [found for found in comparisons if found.ranked()]
    advice = report.advice(comparisons)
    print("\n" + "\n".join(advice), flush=True)
    if options.json:
        everything = {**facts, "interrupted": interrupted, "advice": advice}
        everything["comparisons"] = [asdict(found) for found in comparisons]
        Path(options.json).write_text(json.dumps(everything, indent=1), encoding="utf-8")
    if options.csv:
        report.write_csv(options.csv, comparisons)
    if options.plot and comparisons:
        report.plot(options.plot, comparisons)
    if interrupted:
        return 130
    return 0 if comparisons else 1


def _end(hosts: list[Host]) -> None:
    try:
        for host in hosts:
            host.terminate()
        for host in hosts:
            host.close()
    except BaseException:  # Ctrl-C, once more: they are not waited for any longer
        with interrupts_held():
            for host in hosts:
                host.kill()
        raise


def _check(options: argparse.Namespace) -> None:
    """Raise now for what would otherwise fail in every host, or after everything has been measured."""
    if options.step is not None and (options.stream is None or not 0 <= options.step < math.inf):
        raise ParameterError(
            f"--step {options.step:g}: it goes with a stream of yours, and is a number that is at least 0"
        )
    for path in filter(None, (options.json, options.csv, options.plot)):
        if not Path(path).resolve().parent.is_dir():
            raise ParameterError(f"cannot write {path}: there is no folder {Path(path).resolve().parent}")
    if options.plot:
        report.check_plot(options.plot)
    ParallelStreamer(stream_of(options.stream or "images", options.workers), "serial", options.workers)


def _available() -> list[str]:
    """Return the names of the backends that can be used here, and work on this machine alone."""
    names = dict.fromkeys(["serial", "thread", "zmq", "shm", *backends.names()])
    del names["ray"]
    found = []
    for name in names:
        with contextlib.suppress(PescadorError):  # something that it needs is not installed
            backends.get(name)
            found.append(name)
    return found


def _compare(
    found: Comparison, hosts: dict[str, Host], rounds: int, seconds: float, progress: _Progress
) -> None:
    """Measure all backends. What is known is in `found`, also when this is interrupted."""

    def measure(row: Row, step: float | None) -> Answer | None:
        hosts[row.backend].ask(seconds=seconds, step=step)
        return row.take(hosts[row.backend].answer())

    progress.show(f"{found.name}: opening")
    for host in hosts.values():
        host.ask(name=found.name)
    for row in found.rows:
        opened = row.take(hosts[row.backend].answer())
        found.item_bytes = (opened or {}).get("item_bytes", found.item_bytes)
        progress.advance()
    if found.step is None and found.name not in WORKS:
        making = next(filter(None, (measure(row, 0) for row in found.rows if not row.error)), None)
        found.step = making["seconds"] / making["items"] if making else 0
    for number in range(rounds):
        for row in found.rows[:: -1 if number % 2 else 1]:
            progress.show(f"{found.name}: {row.backend}")
            if not row.error and (part := measure(row, found.step)):
                row.slices.append(part)
            progress.advance()


class _Progress:
    """A bar on a terminal; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total
        self._is_seen = sys.stderr.isatty()

    def show(self, what: str) -> None:
        if self._is_seen:
            bar = "#" * (30 * self._done // self._total)
            print(
                f"\r\033[K[{bar:30}] {self._done}/{self._total} {what}", end="", file=sys.stderr, flush=True
            )

    def advance(self) -> None:
        self._done += 1

    def clear(self) -> None:
        if self._is_seen:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
