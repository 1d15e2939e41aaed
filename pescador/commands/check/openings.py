"""Opening a stream for a bounded time, serially and in the background, and what came of it.

All openings have one seed, and are the first that it gives out, whatever the ``random_state`` of the stream.
The global generators are seeded as those of a pool's first worker are, so a stream that draws from them gives
the same items here as there.

A stream may block for ever. An opening takes no further item after `seconds`, and is given up when the next
one does not come for as long again. Then a worker process is ended. What is opened serially runs on a daemon
thread, which cannot be ended: it goes on until its next item comes.
"""

from __future__ import annotations

import random
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass, field
from functools import wraps
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from ...backends.protocol.errors import RemoteTraceback, describe_error
from ...backends.protocol.pickling import dump
from ...backends.protocol.world import seed_globals
from ...backends.system.waiting import in_slices
from ...core import Streamer
from ...exceptions import WorkerError
from ...opening import Context, Opener, State
from ...parallel import ParallelStreamer
from ...seeding import WORKER, Seed
from .comparing import difference, pickle_of
from .leftovers import Left, left_since, resources
from .parts import Change, View, changes, is_library, snapshot, view_in, walk

__all__ = ["SERIALLY", "THREAD", "Opening", "Subject", "Where"]

T = TypeVar("T")

ENTROPY: Final = 20_250_101  # any number
MAX_BYTES: Final = 1 << 27  # of the items of one opening that are kept
MAX_CALLS: Final = 16  # of generator functions whose arguments are looked at


class Where(NamedTuple):
    """Where a stream is opened: in this thread, or on workers of a backend."""

    how: str
    backend: str = ""
    n_workers: int = 0


SERIALLY: Final = Where("serially")
THREAD: Final = Where("in a thread", "thread", 1)


class Subject:
    """The stream that is checked: what it is called, and how it is opened, for `n` items or `seconds`."""

    def __init__(self, stream: Streamer[Any], name: str, n: int, seconds: float) -> None:
        self.stream, self.name, self.n, self.seconds = stream, name, n, seconds
        below = [part for _, part in walk(stream, "") if isinstance(part, ParallelStreamer)]
        self._idle = [parallel for parallel in below if not parallel.stats()["workers"]]

    def close(self) -> None:
        """End the workers of ParallelStreamers below the stream that had none before."""
        for parallel in self._idle:
            parallel.close()

    def open(
        self, where: Where = SERIALLY, stream: Streamer[Any] | None = None, n: int | None = None
    ) -> Opening:
        """Open the stream, or one below it, and take n items at most."""
        opening = Opening(stream or self.stream, where)
        seed = Seed(ENTROPY, numbers={source.key: 0 for source in opening.stream._sources})
        had = resources()
        with _surroundings(seed, opening):
            run = _run_serially if where is SERIALLY else _run_in_background
            run(opening, seed, n or self.n, self.seconds)
        if where is SERIALLY:
            self.close()
            opening.left = left_since(had)
        return opening

    def path(self, stream: Streamer[Any]) -> str:
        """Return the path to a stream below this one."""
        return next((path for path, part in walk(self.stream, self.name) if part is stream), repr(stream))

    def place(self, opening: Opening, number: int) -> str:
        """Return which item of an opening this is, and which one of the stream below from which it came."""
        stream, own_number = opening.origin(number)
        if stream is self.stream:
            return f"item {number}"
        return f"item {number}, which is item {own_number} of {self.path(stream)}, {stream!r:.100}"


@dataclass
class Opening:
    """One opening of a stream, and what came out of it."""

    stream: Streamer[Any]
    where: Where
    items: list[Any] = field(default_factory=list)  # copies that nothing changes, until they were compared
    n_bytes: int = 0
    seconds: list[float] = field(default_factory=list)  # for which each item was waited
    has_ended: bool = False
    is_late: bool = False  # whether an item did not come in time
    error: str = ""  # what it raised, and where
    warnings: list[warnings.WarningMessage] = field(default_factory=list)
    used: list[str] = field(default_factory=list)  # global random generators
    stats: dict[str, Any] = field(default_factory=dict)  # of an opening on workers
    # Of a serial one:
    origins: list[tuple[Streamer[Any], int]] = field(default_factory=list)  # see origin()
    changed: list[tuple[Streamer[Any], Change]] = field(default_factory=list)  # arguments of their own
    view: View | None = None  # in the last item
    refilled: int | None = None  # the first item that changed when the next one was made
    close_error: str = ""
    left: set[Left] = field(default_factory=set)  # when it was closed

    def take(
        self, items: Iterator[Any], n: int, seconds: float, look: Callable[[Any], Any] = lambda item: item
    ) -> None:
        """Take n items, or as many as come in time and find room; keep what `look` returns of each."""
        end = time.perf_counter() + seconds
        try:
            while len(self.items) < n and self.n_bytes < MAX_BYTES and time.perf_counter() < end:
                begun = time.perf_counter()
                item = next(items)
                if self.is_late:  # nobody waits for it any more
                    return
                self.seconds.append(time.perf_counter() - begun)
                self.n_bytes += len(pickle_of(item) or b"")
                self.items.append(look(item))
        except StopIteration:
            self.has_ended = True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.is_late = isinstance(error, WorkerError) and "(stall_timeout=" in str(error)
            self.error = _told(error)

    def origin(self, number: int) -> tuple[Streamer[Any], int]:
        """Return the stream below that made an item, or raised in its place, and which of its items it is."""
        return self.origins[number] if number < len(self.origins) else (self.stream, number)

    def difference(self, other: Opening) -> tuple[int, str] | None:
        """Return the number of the first item in which two openings differ, and how they differ."""
        number = min(len(self.items), len(other.items))
        for i in range(number):
            how = difference(self.items[i], other.items[i])
            if how is not None:
                return i, how
        end, other_end = self._end(number), other._end(number)
        if not end or not other_end or end == other_end:
            return None
        return number, f"one opening {end}, and the other {other_end}"

    def _end(self, number: int) -> str:
        """Return what it does after so many items; '' if it is not known."""
        if len(self.items) > number:
            return "goes on"
        if self.error and not self.is_late:
            return f"raises {self.error}"
        return "ends" if self.has_ended else ""


def _run_in_background(opening: Opening, seed: Seed, n: int, seconds: float) -> None:
    _, backend, n_workers = opening.where
    try:
        with (
            ParallelStreamer(opening.stream, backend, n_workers, stall_timeout=seconds) as parallel,
            closing(parallel.open(Context(seed), n)) as items,
        ):
            opening.take(items, n, seconds)
            opening.stats = parallel.stats()
    except Exception as error:  # there is no memory for a ring, for example
        opening.error = opening.error or _told(error)


def _run_serially(opening: Opening, seed: Seed, n: int, seconds: float) -> None:
    opener = _Opener()
    is_over = threading.Event()
    last: list[Any] = []  # the last item as it came

    def look(item: Any) -> Any:
        opening.origins.append(opener.asked)
        if last and opening.refilled is None and difference(last[0], opening.items[-1]):
            opening.refilled = len(opening.items) - 1
        last[:] = [item]
        with suppress(Exception):  # a lock cannot be copied, for example
            return deepcopy(item)
        return item

    def run() -> None:
        items = opener.open(opening.stream, seed, None)
        try:
            opening.take(items, n, seconds, look)
        except KeyboardInterrupt as error:  # of the stream's own: a Ctrl-C comes to the main thread
            opening.error = _told(error)
        if opening.error:
            opening.origins.append(opener.asked)
        opening.view = view_in(last, opening.stream)
        last.clear()
        try:
            items.close()
        except BaseException as error:
            opening.close_error = _told(error)
        opening.changed = list(opener.changes())
        is_over.set()

    threading.Thread(target=copy_context().run, args=(run,), name="pescador-check", daemon=True).start()
    try:
        in_slices(is_over.wait, 2 * seconds)
    finally:
        opening.is_late = not is_over.is_set()


class _Opener(Opener):
    """Opens streams in this thread, and knows which one was asked for an item last: that one gives it."""

    def __init__(self) -> None:
        self.asked: tuple[Streamer[Any], int]
        self._calls: list[tuple[Streamer[Any], Streamer[Any]]] = []  # the latter with arguments of its own

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Generator[T, None, None]:
        """Return an iterator over a stream; those below it are opened here, too."""
        function, noted = streamer.streamer, streamer
        if type(streamer) is Streamer and isinstance(function, FunctionType):

            @wraps(function)
            def noting(*args: Any, **kwargs: Any) -> Any:
                if len(self._calls) < MAX_CALLS:
                    self._calls.append((streamer, Streamer(function, *args, **kwargs)))
                return function(*args, **kwargs)

            noted = Streamer(noting, *streamer.args, **streamer.kwargs)
        return self._followed(streamer, noted.open(Context(seed, self), max_iter, state))

    def _followed(self, streamer: Streamer[T], items: Generator[T, None, None]) -> Generator[T, None, None]:
        with closing(items):
            self.asked = streamer, 0
            for number, item in enumerate(items, 1):
                yield item
                self.asked = streamer, number

    def changes(self) -> Iterator[tuple[Streamer[Any], Change]]:
        """Yield how arguments of generator functions differ from those in the recipe, and forget them."""
        while self._calls:
            recipe, own = self._calls.pop()
            yield from ((recipe, change) for change in changes(snapshot(recipe, ""), snapshot(own, "")))


@contextmanager
def _surroundings(seed: Seed, opening: Opening) -> Iterator[None]:
    """Seed the global generators, catch warnings, note what was used, and put all as it was."""
    states, python = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002  # it is about them
    torch: Any = sys.modules.get("torch")
    devices = range(torch.cuda.device_count()) if torch and torch.cuda.is_initialized() else ()
    with (
        torch.random.fork_rng(devices) if torch else nullcontext(),
        warnings.catch_warnings(record=True) as opening.warnings,
    ):
        warnings.simplefilter("always")
        try:
            seed_globals(seed.child(WORKER, 0))
            before = _global_states()
            yield
            after = _global_states()
            opening.used = [name for name in before if before[name] != after[name]]
        finally:
            np.random.set_state(states)  # noqa: NPY002  # as above
            random.setstate(python)


def _global_states() -> dict[str, bytes]:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002  # as above
    states: dict[str, object] = {"np.random": numpy_state, "random": random.getstate()}
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return {name: dump(state) for name, state in states.items()}


def _told(error: BaseException) -> str:
    """Return an exception as text, with the user's line. It is not kept: it keeps what its frames hold."""
    text, _, stack = describe_error(error).partition(" Its stack:")  # of a worker that stalled
    with suppress(Exception):  # an exception may be of any class
        cause = error.__cause__
        is_remote = isinstance(cause, RemoteTraceback)
        stack = stack or (str(cause) if is_remote else "".join(traceback.format_exception(error)))
        text = ". ".join([text, *getattr(error, "__notes__", ())])
    places = re.findall(r'(?m)^ *File "(.+?)", line (\d+)', stack)
    if "most recent call first" not in stack:
        places.reverse()
    place = next((place for place in places if not is_library(place[0])), places[0] if places else ())
    return f"{text} ({':'.join(place)})" if place else text
