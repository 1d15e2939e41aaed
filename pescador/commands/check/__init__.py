"""Whether a stream of yours keeps the laws: ``pescador.check`` and ``python -m pescador check module:name``.

openings.py   opening a stream, serially and in the background, for a bounded time
comparing.py  whether two items are the same
parts.py      what a recipe is made of, and what of it has changed
code.py       what the code of a function refers to, and which of it may differ from one opening to the next
culprit.py    what cannot be pickled
leftovers.py  what is left when a stream is closed
items.py      what an item is made of
laws.py       findings: what is not repeatable, not the same in the background, not isolated, not clean
costs.py      findings: copies, memory, throughput
report.py     findings, and how they are shown

Nothing is asked of the stream that training would not do: it is opened, and items are taken. All openings
have one seed, so that their items can be compared. Where they differ, streams below are opened by themselves,
to find the one that does, and its code and arguments are searched for what may be the cause.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import redirect_stdout, suppress
from typing import Any, Final

import numpy as np

from ... import backends
from ...checks import whole_number
from ...core import Streamer
from ...exceptions import ParameterError, PescadorError
from ...parallel import MAX_TIMEOUT, ParallelStreamer
from ..bench.works import stream_of
from . import costs, laws
from .culprit import find_culprit
from .items import View, owner, view_of
from .laws import Pair, Subject
from .leftovers import Left, left_since, resources
from .openings import Opening, Where, in_background, serially
from .parts import changes, snapshot, walk
from .report import LEVELS, Finding, Report

__all__ = ["SECONDS", "Finding", "Report", "check", "run"]

SECONDS: Final = 10.0
THREAD: Final = Where("in a thread", "thread", 1)


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
    examination = _Examination(Subject(root, name), seconds)
    try:
        report.n_items = examination.run(n)
    finally:
        examination.close()
    report.findings = sorted(examination.found, key=lambda finding: LEVELS.index(finding.level))
    return report


class _Examination:
    """Opens one stream in all ways, and collects what is found."""

    def __init__(self, subject: Subject, seconds: float) -> None:
        self.found: list[Finding] = []
        self._subject, self._stream = subject, subject.stream
        self._seconds = seconds
        parallels = [part for _, part in walk(subject.stream, "") if isinstance(part, ParallelStreamer)]
        self._idle = [parallel for parallel in parallels if not parallel.stats()["workers"]]
        self._left: list[set[Left]] = []
        self._views: list[View] = []

    def close(self) -> None:
        """End the workers of ParallelStreamers below the stream that had none before."""
        for parallel in self._idle:
            parallel.close()

    def run(self, n: int) -> int:
        """Examine at most n items, and return how many they were."""
        stream, subject, asked = self._stream, self._subject, n
        before = snapshot(stream, subject.name)
        culprit = find_culprit(stream, subject.name)
        if culprit is not None:
            self.found.append(laws.pickled(culprit))
        processes = _processes(stream) if culprit is None else []
        opened: dict[Where, Opening] = {}
        for where in processes[:1]:
            # It comes first, because a process that blocks can be ended: this process does not wait for what
            # did not come there.
            opened[where] = worker = self._background(where, n)
            if worker.is_late:
                self.found.append(laws.late(worker, self._seconds))
            if worker.is_late or not (worker.has_ended or worker.error):
                n = len(worker.items)
            if not n:
                return 0

        known = {id(owner(part)) for _, part in walk(stream, "") if isinstance(part, np.ndarray)}
        first = self._serial(n, lambda item: self._look_behind(item, known))
        if first.is_late:
            self.found.append(laws.late(first, self._seconds))
            return len(first.items)
        second, early = self._serial(n), self._serial(1)
        changed = next(changes(before, snapshot(stream, subject.name)), None)
        self.found += laws.raised(subject, first)
        self.found += laws.repeatable(subject, first, second, changed, self._pair(None, n))
        is_repeatable = laws.compare(first, second) is None
        second.items.clear()

        differ: list[Finding] = []
        for where in (*processes[:1], THREAD, *processes[1:]):
            opening = opened[where] = opened.get(where) or self._background(where, n)
            # What differs on one worker need not be told of two. And what streams draw from a global state
            # depends on who shares it; torch's is seeded in a worker only if that has torch already.
            is_told = where is not THREAD and "torch" in first.used
            if where.n_workers > 1:
                is_told = bool(differ or first.used)
            if is_repeatable and not is_told:
                differ += laws.background(subject, first, opening, changed, self._pair(where, n))
            opening.items.clear()
        ones = [opening for where, opening in opened.items() if where.n_workers == 1]
        self.found += differ
        self.found += laws.isolated(subject, first, changed)
        self.found += laws.ends(first, second, early)
        self.found += laws.clean(*self._left)
        self.found += costs.copies(subject, first, self._views, *ones)
        self.found += costs.speed(subject, first.items, second, *opened.values())
        if len(first.items) < asked and not (first.has_ended or first.error):
            self.found.append(laws.few(len(first.items), asked, self._seconds))
        return len(first.items)

    def _background(self, where: Where, n: int) -> Opening:
        return in_background(self._stream, where, n, self._seconds)

    def _serial(self, n: int, watch: Callable[[Any], None] | None = None) -> Opening:
        """Open the stream here, and note what is left when it is closed."""
        had = resources()
        opening = serially(self._stream, n, self._seconds, watch)
        self.close()
        self._left.append(left_since(had))
        return opening

    def _look_behind(self, item: Any, known: Collection[int]) -> None:
        if not self._views and (view := view_of(item, known)) is not None:
            self._views.append(view)

    def _pair(self, where: Where | None, n: int) -> Pair:
        """Return what opens a stream serially, and again serially or in some background."""

        def pair(stream: Streamer[Any]) -> tuple[Opening, Opening]:
            one = serially(stream, n, self._seconds)
            if where is None:
                return one, serially(stream, n, self._seconds)
            return one, in_background(stream, where._replace(n_workers=1), n, self._seconds)

        return pair


def _processes(stream: Streamer[Any]) -> list[Where]:
    """Return on what processes a stream is opened: none, if there is no backend that has some."""
    for backend in ("shm", "zmq"):
        with suppress(PescadorError):
            backends.get(backend)
            where = [Where("on one worker process", backend, 1), Where("on two worker processes", backend, 2)]
            return where if stream.mixes else where[:1]
    return []
