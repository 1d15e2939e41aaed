"""Whether a stream of yours keeps the laws: ``pescador.check`` and ``python -m pescador check module:name``.

openings.py   opening a stream, serially and in the background, for a bounded time
comparing.py  whether two items are the same
parts.py      what a stream is made of, what of it has changed, and what cannot be pickled
code.py       what the code of a function refers to, and which of it may differ from one opening to the next
leftovers.py  what is left when a stream is closed
laws.py       findings: what is not repeatable, not the same in the background, not isolated, not clean
costs.py      findings: copies, memory, throughput
report.py     findings, and how they are shown

Nothing is asked of the stream that training would not do: it is opened, and items are taken. All openings
have one seed, so that their items can be compared. Where they differ, streams below are opened by themselves,
to find the one that does, and its code and arguments are searched for what may be the cause.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout, suppress
from typing import Any, Final

from ... import backends
from ...checks import whole_number
from ...core import Streamer
from ...exceptions import ParameterError, PescadorError
from ...parallel import MAX_TIMEOUT, ParallelStreamer
from ..bench.works import stream_of
from . import costs, laws
from .openings import THREAD, Opening, Subject, Where
from .parts import changes, find_culprit, snapshot
from .report import LEVELS, Finding, Report

__all__ = ["SECONDS", "Finding", "Report", "check", "run"]

SECONDS: Final = 10.0


def check(stream: Streamer[Any] | Iterable[Any], n: int = 100, *, seconds: float = SECONDS) -> Report:
    """Find out whether a stream keeps the laws, and what of it is slow.

    The stream is opened on a worker process, twice serially, in a thread, and if it is a mux, on two workers,
    always under the same seed. It should give the same items each time; leave what it was given, and the
    process, as they were; and end when it is told to.

    Parameters
    ----------
    stream : Streamer or iterable
        What to check. Of a ParallelStreamer, what it runs. An iterator that runs already is used up by it.
    n : int
        How many items of each opening are compared; fewer, if they do not come in time, or have more than
        128 MiB.
    seconds : float
        Bound of each opening: after that time it takes no further item, and after twice as long it is given
        up. There are six, or more if they differ. What blocks in a worker process is ended. What blocks only
        in this process is left to a daemon thread, which ends when its next item comes.

    Returns
    -------
    report : Report
        ``report.ok`` tells whether no law is broken, ``report.findings`` is a list of what was found: level,
        what, where, cause, remedy. ``print(report)`` shows it.

    Raises
    ------
    PescadorError
        If `stream` is no stream, or another argument has a value that cannot work. What the stream itself
        raises is a finding.

    Examples
    --------
    >>> import time
    >>> import pescador
    >>> def clock(n):
    ...     for i in range(n):
    ...         yield {'now': time.perf_counter()}
    >>> report = pescador.check(pescador.Streamer(clock, 3))
    >>> report.ok
    False
    >>> report.findings[0].what[:14], 'time.perf_counter' in report.findings[0].cause
    ('not repeatable', True)
    """
    return _checked(stream, n, seconds, "stream")


def run(name: str, n: int, seconds: float) -> int:
    """Check the stream ``module:name``, print the report, and return the exit code."""
    try:
        with redirect_stdout(sys.stderr):  # what the stream prints
            report = _checked(stream_of(name, 1), n, seconds, name.rpartition(":")[2])
    except ParameterError as error:
        print(f"pescador check: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0 if report.ok else 1


def _checked(stream: Streamer[Any] | Iterable[Any], n: int, seconds: float, name: str) -> Report:
    n = whole_number(n, "n", 1)
    if not (isinstance(seconds, int | float) and 0 < seconds <= MAX_TIMEOUT):
        raise ParameterError(f"seconds is a number above 0 and up to {MAX_TIMEOUT:,}, got {seconds!r}")
    root: Any = stream if isinstance(stream, Streamer) else Streamer(stream)
    while isinstance(root, ParallelStreamer):
        root = root.streamer
    report = Report(name)
    subject = Subject(root, name, n, seconds)
    try:
        report.findings = sorted(_examine(subject, report), key=lambda finding: LEVELS.index(finding.level))
    finally:
        subject.close()
    return report


def _examine(subject: Subject, report: Report) -> Iterator[Finding]:
    """Open the stream in all ways, and yield what is found."""
    asked, before = subject.n, snapshot(subject.stream, subject.name)
    culprit = find_culprit(subject.stream, subject.name)
    if culprit is not None:
        yield laws.unpicklable(culprit)
    processes = _processes(subject.stream) if culprit is None else []
    others: dict[Where, Opening] = {}
    for where in processes[:1]:
        # It comes first, because a process that blocks can be ended: this process does not wait for what did
        # not come there.
        others[where] = worker = subject.open(where)
        if worker.is_late:
            yield laws.late(subject, worker)
        if worker.is_late or not (worker.has_ended or worker.error):
            subject.n = len(worker.items)
        if not subject.n:
            return

    first = subject.open()
    report.n_items = len(first.items)
    if first.is_late:
        yield laws.late(subject, first)
        return
    second, early = subject.open(), subject.open(n=1)
    changed = next(changes(before, snapshot(subject.stream, subject.name)), None)
    yield from laws.raised(subject, first)
    yield from (differences := list(laws.differing(subject, first, second, changed)))
    yield from laws.global_states(subject, first)
    second.items.clear()
    is_repeatable = not differences
    for where in (*processes[:1], THREAD, *processes[1:]):
        other = others[where] = others.get(where) or subject.open(where)
        # What streams draw from a global state depends on who shares it; torch's is seeded in a worker only
        # if that has torch already. And what differs on one worker need not be told of two.
        is_shared = bool(first.used) if where.n_workers > 1 else "torch" in first.used and where is not THREAD
        if is_repeatable and not is_shared and not (differences and where.n_workers > 1):
            differences += laws.differing(subject, first, other, changed)
        other.items.clear()
    if is_repeatable:
        yield from differences
    yield from laws.isolated(subject, first, changed)
    yield from laws.ends(first, second, early)
    yield from laws.clean(first, second, early)
    yield from costs.memory(subject, first)
    yield from (pickles := list(costs.pickles(first.items)))
    for where, other in others.items():
        if where is THREAD or (where.n_workers == 1 and not pickles):
            yield from costs.copies(subject, first, other)
    yield from costs.speed(subject, second, *others.values())
    if len(first.items) < asked and not (first.has_ended or first.error):
        cause = "no more came in time, or items are large"
        remedy = "Give it longer: seconds=60, --seconds 60"
        yield Finding("note", f"{len(first.items)} of {asked} items were compared", "", cause, remedy)


def _processes(stream: Streamer[Any]) -> list[Where]:
    """Return on what processes a stream is opened: none, if there is no backend that has some."""
    for backend in ("shm", "zmq"):
        with suppress(PescadorError):
            backends.get(backend)
            where = [Where("on one worker process", backend, 1), Where("on two worker processes", backend, 2)]
            return where if stream.mixes else where[:1]
    return []
