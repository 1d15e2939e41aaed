"""The fault table: what becomes of a stream, for every place where it may fail and every way of failing.

A cell is a place and a way of failing (both in failing.py), a backend and a start method. The first rule
below that fits a cell gives its outcome. A rule without an outcome says why there are no such cells. The
tests run all cells, and the page for users is generated from the same rules::

    python -m tests.faults.table > docs/faults.md
"""

from dataclasses import dataclass

from pescador import DataError, PescadorError, WorkerError

from ..kinds import KINDS
from .failing import (
    ACTIVATION,
    BETWEEN,
    CANNOT_TRAVEL,
    CLOSE,
    DIES,
    FIRST,
    LEASE,
    NESTED,
    NO_EXCEPTIONS,
    PAUSES,
    PICKLING,
    PLACES,
    RAISES,
    RING,
    STOPS,
    TIMEOUT,
    UNPICKLING,
    WAYS,
    WINDOW,
    WRITE,
    Place,
    Way,
)

WITHIN = 1.0  # seconds

HERE = ("serial", "thread")
WORKERS = ("shm", "zmq")
BACKENDS = (*HERE, *WORKERS)


class Itself(Exception):
    """Stands for the very exception that was raised."""


def but(*places):
    return tuple(place for place in PLACES if place not in places)


@dataclass(frozen=True)
class Rule:
    """The outcome of some cells, or the reason why there are no such cells."""

    places: tuple[Place, ...]
    ways: tuple[Way, ...]
    backends: tuple[str, ...]
    happens: str  # for users: what happens, or why it cannot
    seen: str = ""  # for users: what they see; empty if there are no such cells
    error: type[BaseException] | None = None  # None: all items arrive, or (during close) nothing is raised
    text: tuple[str, ...] = ()  # what the message contains
    soon: str = "1 s"

    def fits(self, place, way, backend):
        return place in self.places and way in self.ways and backend in self.backends

    @property
    def within(self):
        """In how many seconds the consumer must have learnt of it."""
        return WITHIN + (TIMEOUT if "timeout" in self.soon else 0)


ENDS = (*DIES, STOPS, PAUSES)

RULES = (
    Rule(but(NESTED), ENDS, HERE, "the stream runs in the consumer's own process"),
    Rule((PICKLING,), ENDS, WORKERS, "the recipe is pickled in the consumer's own process"),
    Rule((PICKLING, UNPICKLING, WRITE), WAYS, HERE, "nothing is pickled or written"),
    Rule((WINDOW,), WAYS, ("serial",), "nothing is produced ahead"),
    Rule((WINDOW,), WAYS, ("thread",), "a waiting thread receives neither signals nor exceptions"),
    Rule((RING,), WAYS, ("serial", "thread", "zmq"), "there is no ring"),
    Rule((NESTED,), (STOPS,), HERE, "the inner ParallelStreamer would have to be closed, not this one"),
    Rule(
        (PICKLING,),
        NO_EXCEPTIONS,
        WORKERS,
        "`sys.exit` or Ctrl-C while the recipe is pickled",
        "`SystemExit` or `KeyboardInterrupt`, as without workers",
        Itself,
    ),
    Rule(
        (PICKLING,),
        RAISES,
        WORKERS,
        "The recipe cannot be pickled",
        "`PescadorError` that gives the reason and the remedy",
        PescadorError,
        ("cannot be sent to a worker process: {name}: {text}", "must be picklable"),
    ),
    Rule(
        (UNPICKLING,),
        RAISES,
        WORKERS,
        "The worker cannot load the recipe",
        "`WorkerError` that gives the reason",
        WorkerError,
        ("can't be loaded in worker process {pid}: {name}: {text}",),
    ),
    Rule(
        (WRITE,),
        RAISES,
        WORKERS,
        "An item cannot be pickled",
        "`DataError` that describes the item",
        DataError,
        ("an item cannot be sent", "({size},)", "{name}", "{text}"),
    ),
    Rule(
        (CLOSE,),
        RAISES,
        ("serial",),
        "The generator raises while it is being closed",
        "the generator's exception, raised by `close()`",
        Itself,
    ),
    Rule(
        (CLOSE,),
        WAYS,
        ("thread", *WORKERS),
        "The generator raises, or its worker dies or is stopped, while the ParallelStreamer is being closed",
        "no exception; `close()` returns normally",
        soon="`timeout` + 1 s",
    ),
    Rule(
        (LEASE,),
        RAISES,
        BACKENDS,
        "A finalizer of an array raises",
        "all items arrive; Python reports the exception on stderr, as for any finalizer",
    ),
    Rule(
        (WINDOW, RING),
        RAISES,
        WORKERS,
        "A signal handler that the generator installed raises while its worker waits for the consumer",
        "`WorkerError` with the traceback; the worker ends",
        WorkerError,
        ("worker process {pid} ", "It was running", "{name}", "{text}"),
    ),
    Rule(
        (ACTIVATION, FIRST, BETWEEN),
        CANNOT_TRAVEL,
        WORKERS,
        "The generator raises an exception that cannot be pickled, or cannot be unpickled",
        "`WorkerError` with the traceback of that exception",
        WorkerError,
        ("raised in worker process {pid}, and the exception can't be sent as it is", "{name}", "{text}"),
    ),
    Rule(
        (NESTED,),
        CANNOT_TRAVEL,
        BACKENDS,
        "The generator of a nested ParallelStreamer raises an exception that cannot be pickled or unpickled",
        "`WorkerError` with the traceback of that exception",
        WorkerError,
        ("raised in worker process {pid}, and the exception can't be sent as it is", "{name}", "{text}"),
    ),
    Rule(
        (ACTIVATION, FIRST, BETWEEN, NESTED),
        RAISES,
        BACKENDS,
        "The generator raises any other exception: one of your own, a full disk, `MemoryError`, `sys.exit`",
        "the same exception, of the same type; if it comes from a worker process, its `__cause__` shows the "
        "traceback there",
        Itself,
    ),
    Rule(
        but(PICKLING, CLOSE),
        DIES,
        BACKENDS,
        "The worker dies at any point: killed, crashed, or ended by `os._exit`",
        "`WorkerError` with the pid, the exit code or signal, its likely cause, and what was running; the "
        "next iteration starts a new worker",
        WorkerError,
        ("worker process {pid} {text}", "It was running"),
    ),
    Rule(
        but(PICKLING, CLOSE),
        (STOPS,),
        WORKERS,
        "The worker is stopped (SIGSTOP), and then `close()` is called",
        "`close()` ends the worker; a consumer that waits for an item gets `PescadorError`",
        PescadorError,
        ("closed while this stream was open",),
        soon="`timeout` + 1 s",
    ),
    Rule(
        but(PICKLING, CLOSE),
        (PAUSES,),
        BACKENDS,
        "The worker is stopped (SIGSTOP), and then continued (SIGCONT)",
        "all items arrive; the consumer waits as long as the worker is stopped",
    ),
)


def rule_of(place, way, backend):
    """Return the first rule that fits."""
    return next(rule for rule in RULES if rule.fits(place, way, backend))


def n_certain(place, backend):
    """Return the least number of items that arrive before a fault at a place."""
    # ZeroMQ sends from a thread of its own, so the newest item may still be unsent when the worker dies.
    return place.n_before - (place is WINDOW and backend == "zmq")


# The document

HEAD = """\
# What you see when something fails

The tests run every case of a table, `tests/faults/table.py`, and this page is generated from it. The table
has {n_cells:,} cells: one for each place where a stream may fail, way of failing, backend and start method.
After each of them nothing is left behind: no process, no thread, no shared memory, no open file. Where
workers are forked, as on Linux, one idle process stays until your program ends: [the one from which they are
forked](workers.md#the-process-that-stays).

Items that were sent before the fault arrive before the exception is raised. If a worker dies, the items
that it had produced ahead but not yet sent are lost (with `zmq`, also those that were in transit).

*How soon* is the time from the fault until a consumer that waits for the next item hears of it. `timeout`
is the argument of `ParallelStreamer`. The backends `serial` and `thread` have no worker process, so for
them the rows about a worker that dies or is stopped apply to a ParallelStreamer that is nested in the
stream.

| What happens | Backend | What you see | How soon |
|---|---|---|---|
"""

TAIL = """
When a consumer ends, is interrupted or is killed, its workers end, too, within 2 s, on every backend and
with every start method. `tests/faults/test_parents.py` and `test_ctrl_c.py` check this. If Ctrl-C arrives
at the very moment when a message is sent or received, that message may be lost. Then the other streams of
that worker raise `WorkerError`, and the next iteration starts a new worker.

`close()`, and the clean-up after one Ctrl-C, take at most `timeout` + 1 s, whatever the workers do. All
workers are asked to end at the same time, then terminated, then killed. After one second, `close()` logs to
the logger `pescador` which worker it is waiting for, and what that worker is running. A worker that ends
when it is asked runs the exit functions of its generators. Processes that a generator started end with
their worker, even if the worker is killed. There is one exception: with the start methods 'spawn' and
'fork', if somebody else kills the worker, the processes that it started keep running.
"""


def document():
    lines = []
    for rule in RULES:
        if rule.seen:
            backends = "all" if rule.backends == BACKENDS else ", ".join(rule.backends)
            lines.append(f"| {rule.happens} | {backends} | {rule.seen} | {rule.soon} |\n")
    return HEAD.format(n_cells=len(cells())) + "".join(lines) + TAIL


def cells():
    """Return the place, way and kind of every cell."""
    return [
        (place, way, kind)
        for place in PLACES
        for way in WAYS
        for kind, options in KINDS.items()
        if rule_of(place, way, options["backend"]).seen
    ]


if __name__ == "__main__":
    print(document(), end="")
