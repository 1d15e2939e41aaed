"""The fault table: what becomes of a stream, for every place where it may fail and every way of failing.

A cell is a place, a way, a backend and a start method. What it leads to follows from the rules below, of
which the first that fits holds; those without an outcome say why there is no such cell. The test runs
all cells, and the document for users is made of the same rules::

    python -m tests.faults.table > docs/faults.md
"""

import errno
import faulthandler
import os
import resource
import signal
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import pescador
from pescador import DataError, ParallelStreamer, PescadorError, Streamer, WorkerError
from pescador.backends import codec

from ..kinds import KINDS

N_ITEMS = 5
ITEM_BYTES = 20_480  # more than is sent inside of messages
RING_BYTES = 2 * ITEM_BYTES  # full when the consumer holds one item, and the generator one array
TIMEOUT = 0.1  # seconds, that close() waits
WITHIN = 1.0  # seconds


def item(i):
    return {"x": np.full(ITEM_BYTES, i, np.uint8)}


# Ways of failing


class Told(Exception):
    """An exception with a state."""

    def __init__(self, message, code):
        super().__init__(message, code)
        self.code = code


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("this one stays")


class Unloadable(Exception):
    """Is pickled, but its constructor takes something else than what is pickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def throw(error):
    raise error


def fill_the_disk():
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"!")


def break_a_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        os.write(writing, b"!")
    finally:
        os.close(writing)


def signal_oneself(number):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # leave no file, and print nothing
    faulthandler.disable()
    os.kill(os.getpid(), number)


@dataclass(frozen=True)
class Way:
    name: str
    fail: Callable[[], object]
    error: type[BaseException] | None = None  # what it raises
    text: str = ""  # what the message of that contains, or the words for a death


RAISES = (
    Way("exception", lambda: throw(Told("told", 7)), Told, "('told', 7)"),
    Way("unpicklable exception", lambda: throw(Unpicklable("stays")), Unpicklable, "stays"),
    Way("unloadable exception", lambda: throw(Unloadable("salt", "pepper")), Unloadable, "salt and pepper"),
    Way("MemoryError", lambda: bytearray(1 << 62), MemoryError),
    Way("disk full", fill_the_disk, OSError, f"[Errno {errno.ENOSPC}]"),
    Way("broken pipe", break_a_pipe, BrokenPipeError, f"[Errno {errno.EPIPE}]"),
    Way("sys.exit", lambda: sys.exit(7), SystemExit, "7"),
    Way("KeyboardInterrupt", lambda: throw(KeyboardInterrupt()), KeyboardInterrupt),
)
CANNOT_TRAVEL = RAISES[1:3]
NO_EXCEPTIONS = RAISES[6:]  # but BaseExceptions

DIES = (
    Way("os._exit", lambda: os._exit(7), text="exited with code 7"),
    Way("SIGKILL", lambda: signal_oneself(signal.SIGKILL), text="was killed by SIGKILL; did the system"),
    Way("SIGSEGV", lambda: signal_oneself(signal.SIGSEGV), text="was killed by SIGSEGV; a fault in compiled"),
)
# A stopped process is not dead. What is done about it is up to the test: close(), or SIGCONT.
STOPS = Way("SIGSTOP, close()", lambda: signal_oneself(signal.SIGSTOP))
PAUSES = Way("SIGSTOP, SIGCONT", lambda: signal_oneself(signal.SIGSTOP))

WAYS = (*RAISES, *DIES, STOPS, PAUSES)


@dataclass(frozen=True)
class Act:
    """Fails when it is called, and reports which process that was, and when."""

    way: int
    path: str

    def __call__(self):
        report = os.open(self.path, os.O_WRONLY)
        os.write(report, b"%d %r\n" % (os.getpid(), time.monotonic()))
        os.close(report)
        WAYS[self.way].fail()


# Places


class WhenPickled:
    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        self.act()
        return int, ()


class WhenUnpickled:
    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        return self.act, ()


def items(act=None, at=None, argument=None):
    for i in range(N_ITEMS):
        if i == at:
            act()
        yield item(i)


def activated(act):
    act()
    return items()


def writing(act, at):
    for i in range(N_ITEMS):
        if i == at and WAYS[act.way] in RAISES:
            yield item(i) | {"y": WhenPickled(act)}
        else:
            if i == at:
                when_half_written(act)
            yield item(i)


def when_half_written(act):
    write = codec.Schema.write

    def write_half(layout, parts, body):
        codec.Schema.write = write
        body[: len(body) // 2] = 255
        act()
        write(layout, parts, body)

    codec.Schema.write = write_half


def waiting(act, at, function):
    for i in range(N_ITEMS):
        if i == at:
            when_waiting(act, function)
        yield item(i)


def crowding(act):
    held = pescador.empty(ITEM_BYTES, np.uint8)
    yield from waiting(act, 1, "_allocate")
    del held


def when_waiting(act, function):
    """Act in a signal handler, as soon as the main thread waits for a command inside of a function."""

    def look(_, frame):
        names = set()
        waits = False
        while frame is not None:
            names.add(frame.f_code.co_name)
            waits = waits or (frame.f_code.co_name == "next_command" and frame.f_locals["block"])
            frame = frame.f_back
        if waits and function in names:
            signal.setitimer(signal.ITIMER_REAL, 0)
            act()

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)


def closing(act):
    try:
        yield from items()
    finally:
        act()


def leasing(act, at):
    for i in range(N_ITEMS):
        array = pescador.empty(ITEM_BYTES, np.uint8)
        array[:] = i
        if i == at:
            weakref.finalize(array, act)
        yield {"x": array}


@dataclass(frozen=True)
class Place:
    name: str
    source: Callable[[Act], Streamer]
    n_before: int = 0  # items that arrive before it; but see n_certain
    pause: int | None = None  # after so many the consumer waits until it has happened


PICKLING = Place("pickling the recipe", lambda act: Streamer(items, argument=WhenPickled(act)))
UNPICKLING = Place("unpickling the recipe", lambda act: Streamer(items, argument=WhenUnpickled(act)))
ACTIVATION = Place("activation", lambda act: Streamer(activated, act))
FIRST = Place("first item", lambda act: Streamer(items, act, 0))
WRITE = Place("middle of an item's write", lambda act: Streamer(writing, act, 3), 3)
BETWEEN = Place("between items", lambda act: Streamer(items, act, 3), 3)
WINDOW = Place("blocked on a full window", lambda act: Streamer(waiting, act, 2, "run"), 3, pause=2)
RING = Place("blocked on a full ring", lambda act: Streamer(crowding, act), 1, pause=1)
CLOSE = Place("during close", lambda act: Streamer(closing, act), 1)
NESTED = Place(
    "in a nested worker",
    lambda act: ParallelStreamer(Streamer(items, act, 3), prefetch=1, timeout=TIMEOUT),
    3,
)
LEASE = Place("in a lease's release", lambda act: Streamer(leasing, act, 2), 3)

PLACES = (PICKLING, UNPICKLING, ACTIVATION, FIRST, WRITE, BETWEEN, WINDOW, RING, CLOSE, NESTED, LEASE)

# Outcomes

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
        "that",
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
        ("an item cannot be sent", "({size},)", "{name}: {text}"),
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
and with every start method: `tests/faults/test_parents.py`.
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
