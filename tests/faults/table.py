"""The fault table: what becomes of a stream, for every place where it may fail and every way of failing.

A cell is a place and a way (both in failing.py), a backend and a start method. What it leads to follows from
the rules below, of which the first that fits holds; those without an outcome say why there is no such cell.
The test runs all cells, and the document for users is made of the same rules::

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
    """What becomes of some cells: an outcome, or why there are none."""

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
    Rule(but(NESTED), ENDS, HERE, "the process that runs the stream is the consumer's own"),
    Rule((PICKLING,), ENDS, WORKERS, "the process that pickles the recipe is the consumer's own"),
    Rule((PICKLING, UNPICKLING, WRITE), WAYS, HERE, "nothing is pickled or written"),
    Rule((WINDOW,), WAYS, ("serial",), "nothing is made ahead"),
    Rule((WINDOW,), WAYS, ("thread",), "a thread that waits gets neither signals nor exceptions"),
    Rule((RING,), WAYS, ("serial", "thread", "zmq"), "there is no ring"),
    Rule((NESTED,), (STOPS,), HERE, "it is the inner ParallelStreamer that must be closed"),
    Rule(
        (PICKLING,),
        NO_EXCEPTIONS,
        WORKERS,
        "Pickling the recipe ends the program (`sys.exit`, Ctrl-C)",
        "that exception, as without workers",
        Itself,
    ),
    Rule(
        (PICKLING,),
        RAISES,
        WORKERS,
        "The recipe cannot be pickled",
        "`PescadorError` with the reason and the remedy",
        PescadorError,
        ("cannot be sent to a worker process: {name}: {text}", "must be picklable"),
    ),
    Rule(
        (UNPICKLING,),
        RAISES,
        WORKERS,
        "The worker cannot load the recipe",
        "`WorkerError` with the reason",
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
        "The generator raises while it is closed",
        "that exception, from `close()`",
        Itself,
    ),
    Rule(
        (CLOSE,),
        WAYS,
        ("thread", *WORKERS),
        "The generator raises, or its worker dies or is stopped, while the ParallelStreamer is closed",
        "nothing; `close()` returns",
        soon="`timeout` + 1 s",
    ),
    Rule(
        (LEASE,),
        RAISES,
        BACKENDS,
        "The destructor of an array raises",
        "nothing is lost; Python reports it on stderr, as always",
    ),
    Rule(
        (WINDOW, RING),
        RAISES,
        WORKERS,
        "A signal handler of the generator raises while its worker waits for the consumer",
        "`WorkerError` with the traceback: the worker ends",
        WorkerError,
        ("worker process {pid} ", "It was running", "{name}", "{text}"),
    ),
    Rule(
        (ACTIVATION, FIRST, BETWEEN),
        CANNOT_TRAVEL,
        WORKERS,
        "The generator raises an exception that cannot be pickled, or not be loaded again",
        "`WorkerError` with its traceback",
        WorkerError,
        ("raised in worker process {pid}, and the exception can't be sent as it is", "{name}", "{text}"),
    ),
    Rule(
        (NESTED,),
        CANNOT_TRAVEL,
        BACKENDS,
        "The same in a nested ParallelStreamer",
        "the same",
        WorkerError,
        ("raised in worker process {pid}, and the exception can't be sent as it is", "{name}", "{text}"),
    ),
    Rule(
        (ACTIVATION, FIRST, BETWEEN, NESTED),
        RAISES,
        BACKENDS,
        "The generator raises, in whatever way: an error of yours, a full disk, `MemoryError`, `sys.exit`",
        "that exception, of its own type; its cause is the traceback in the worker",
        Itself,
    ),
    Rule(
        but(PICKLING, CLOSE),
        DIES,
        BACKENDS,
        "The worker dies, wherever it is: killed, crashed, `os._exit`",
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
        "`close()` ends the worker, and whoever waits for an item gets a `PescadorError`",
        PescadorError,
        ("closed while this stream was open",),
        soon="`timeout` + 1 s",
    ),
    Rule(
        but(PICKLING, CLOSE),
        (PAUSES,),
        BACKENDS,
        "The worker is stopped (SIGSTOP), and then goes on (SIGCONT)",
        "nothing is lost; the consumer waits meanwhile, for a stopped worker is not dead",
    ),
)


def rule_of(place, way, backend):
    """Return the first rule that fits."""
    return next(rule for rule in RULES if rule.fits(place, way, backend))


def n_certain(place, backend):
    """Return how many items arrive at least before a fault at a place."""
    # A thread of ZeroMQ sends what the worker's main thread gave it a moment ago.
    return place.n_before - (place is WINDOW and backend == "zmq")


# The document

HEAD = """\
# What you see when something fails

This page is made from the table that the tests run, `tests/faults/table.py`: {n_cells:,} cells, one for each
place where a stream may fail, way of failing, backend and start method. After each of them nothing is left:
no process, no thread, no shared memory, no open file.

Items that were sent before the fault arrive before it is raised. What a worker that dies had produced ahead
and not sent yet is lost with it (with zmq, also what was on its way). *How soon* counts from the fault to the
consumer that waits for the next item; `timeout` is the argument of `ParallelStreamer`.

| What happens | Backend | What you see | How soon |
|---|---|---|---|
"""

TAIL = """
A consumer that ends, is interrupted or is killed takes its workers along, in 2 s at most, on every backend
and with every start method: `tests/faults/test_parents.py` and `test_ctrl_c.py`. If Ctrl-C comes just as
a message is sent or received, that may be lost: the other streams of its worker raise `WorkerError`, and the
next iteration starts a new one.

`close()`, and one Ctrl-C, take `timeout` + 1 s at most, whatever workers do: they are asked to end, then
terminated, then killed, side by side. After a second `close()` tells the logger `pescador` for which worker
it waits, and what that runs. A worker that ends when asked runs the exit functions of its generators. What
generators have started ends with their worker, also if that is killed; but with the start methods 'spawn'
and 'fork', what a worker that somebody else kills had started is left to itself.
"""


def document():
    lines = []
    for rule in RULES:
        if rule.seen:
            backends = "all" if rule.backends == BACKENDS else ", ".join(rule.backends)
            lines.append(f"| {rule.happens} | {backends} | {rule.seen} | {rule.soon} |\n")
    return HEAD.format(n_cells=len(cells())) + "".join(lines) + TAIL


def cells():
    """Return place, way and kind of all cells there are."""
    return [
        (place, way, kind)
        for place in PLACES
        for way in WAYS
        for kind, options in KINDS.items()
        if rule_of(place, way, options["backend"]).seen
    ]


if __name__ == "__main__":
    print(document(), end="")
