"""Streams that fail: ways of failing, and places where it happens."""

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
from pescador import ParallelStreamer, Streamer
from pescador.backends.protocol import codec
from pescador.backends.protocol.connection import Connection

N_ITEMS = 5
ITEM_BYTES = 163_840  # more than is sent inside of messages
RING_BYTES = 2 * ITEM_BYTES  # full when the consumer holds one item, and the generator one array
TIMEOUT = 0.1  # seconds, that close() waits


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

    def write_half(layout, parts, record):
        codec.Schema.write = write
        record.memory[: record.n_bytes // 2] = 255
        act()
        write(layout, parts, record)

    codec.Schema.write = write_half


def waiting(act, at, function):
    for i in range(N_ITEMS):
        if i == at:
            when_waiting(act, function)
        yield item(i)


def crowding(act):
    held = pescador.empty(ITEM_BYTES, np.uint8)
    yield from waiting(act, 1, "_wait_for_room")
    del held


def when_waiting(act, function):
    """Act in a signal handler, as soon as the main thread waits for a command inside of a function.

    Once: another signal may be pending already, and would stop a worker again that was told to go on. And in
    the function that waits itself: a finalizer that runs meanwhile would swallow an exception.
    """
    acted = []

    def look(_, frame):
        if frame.f_code is not Connection.wait.__code__:
            return
        names = set()
        waits = False
        while frame is not None:
            names.add(frame.f_code.co_name)
            waits = waits or (frame.f_code.co_name == "next_command" and frame.f_locals["block"])
            frame = frame.f_back
        if waits and function in names and not acted:
            acted.append(True)
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
