"""Every cell of the fault table has its outcome, in time, and leaves nothing."""

import copy
import os
import select
import signal
import sys
import threading
import time
from contextlib import closing, suppress

import psutil
import pytest

from pescador import ParallelStreamer, Streamer
from pescador.backends.protocol.errors import RemoteTraceback

from ..kinds import KINDS, PATIENCE, ROOT
from . import failing, table
from .failing import CLOSE, LEASE, PAUSES, PLACES, RING, STOPS, WAYS, Act
from .table import Itself, rule_of

N_TRIES = 3  # to be in time, on a machine that others use, too


class Report:
    """Hears of a fault, and does what its way needs from outside."""

    def __init__(self, path):
        self.path = str(path)
        os.mkfifo(self.path)
        self.fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def close(self):
        os.close(self.fd)

    def watch(self, act):
        """Start to wait for a fault."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)  # an item is pickled twice, if that fails, and so is a recipe
        self.heard, self.has_all = threading.Event(), threading.Event()
        self.pid = self.time = None
        self.thread = threading.Thread(target=self._run, args=[act])
        self.thread.start()

    def _run(self, act):
        if select.select([self.fd], [], [], PATIENCE)[0]:
            pid, moment = os.read(self.fd, 4096).splitlines()[0].split()
            self.pid, self.time = int(pid), float(moment)
            self.heard.set()
            act(self.pid)

    def wait(self):
        assert self.heard.wait(PATIENCE)

    def join(self):
        self.thread.join()
        assert self.pid, "it did not happen"


def until_stopped(pid):
    give_up = time.monotonic() + PATIENCE
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < give_up
        time.sleep(1e-3)


def run(place, way, parallel, report):
    """Run a cell; return the number of items that came, how it ended, and how long that took."""

    def from_outside(pid):
        if way in (STOPS, PAUSES):
            until_stopped(pid)
        if way is PAUSES:
            os.kill(pid, signal.SIGCONT)
        elif way is STOPS and place is not CLOSE:
            assert report.has_all.wait(PATIENCE)
            parallel.close()

    stream = copy.copy(parallel)  # which shares the pool
    stream.streamer = place.source(Act(WAYS.index(way), report.path))
    report.watch(from_outside)
    n_items, error = take(place, parallel, stream, report)
    report.join()
    return n_items, error, time.monotonic() - report.time


def take(place, parallel, stream, report):
    """Return how many items came, and what ended them."""
    taken, error = [], None
    n_certain = table.n_certain(place, parallel.backend)
    if not n_certain:
        report.has_all.set()
    with closing(iter(stream)) as items:
        try:
            for item in items:
                taken.append(item)
                if len(taken) == n_certain:
                    report.has_all.set()
                if len(taken) == place.pause:
                    report.wait()
                if place is CLOSE:
                    parallel.close()
                    break
        except BaseException as caught:
            error = caught
    # They are kept until now, and those of a worker that has failed are still what they were.
    assert all((item["x"] == i).all() for i, item in enumerate(taken))
    return len(taken), error


def wrong(place, way, kind, parallel, report):
    """Return what is wrong with a cell, in words."""
    for _ in range(N_TRIES):
        n_items, error, seconds = run(place, way, parallel, report)
        if seconds <= rule_of(place, way, kind["backend"]).within:
            break
    rule = rule_of(place, way, kind["backend"])
    expected = way.error if rule.error is Itself else rule.error
    if type(error) is not (expected or type(None)):
        return f"it raised {error!r}, not {expected}"
    message = str(error)
    for text in (way.text,) if rule.error is Itself else rule.text:
        name = way.error and way.error.__name__
        words = text.format(pid=report.pid, name=name, text=way.text, size=failing.ITEM_BYTES)
        if words not in message:
            return f"no {words!r} in {message!r}"
    if rule.error is Itself and "start_method" in kind and place is not failing.PICKLING:
        cause = error.__cause__
        if type(cause) is not RemoteTraceback or f"in {way.fail.__name__}" not in str(cause):
            return f"its cause is {cause!r}"
    fewest, most = table.n_certain(place, kind["backend"]), place.n_before
    if rule.error is None and place is not CLOSE:
        fewest = most = failing.N_ITEMS
    if not fewest <= n_items <= most:
        return f"{n_items} items, not {fewest} to {most}"
    if seconds > rule.within:
        return f"it took {seconds:.2f} s, not {rule.within} s at most"
    return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_every_cell(place, kind, tmp_path, monkeypatch):
    options = KINDS[kind]
    ways = [way for way in WAYS if (place, way, kind) in table.cells()]
    if not ways:
        pytest.skip(rule_of(place, WAYS[0], options["backend"]).happens)
    if place is LEASE:
        monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    if place is RING:
        options = {**options, "ring_bytes": failing.RING_BYTES}
    failed = {}
    # A dead worker is followed by a new one, so the cells of a place share one ParallelStreamer.
    with (
        closing(Report(tmp_path / "report")) as report,
        ParallelStreamer(Streamer(()), prefetch=1, timeout=failing.TIMEOUT, **options) as parallel,
    ):
        for way in ways:
            failed[way.name] = wrong(place, way, options, parallel, report)
    assert not {name: words for name, words in failed.items() if words}


def test_the_document_is_that_of_the_table():
    """After a change: python -m tests.faults.table > docs/faults.md."""
    assert (ROOT / "docs/faults.md").read_text(encoding="utf-8") == table.document()
