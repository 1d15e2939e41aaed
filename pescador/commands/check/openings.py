"""Opening a stream for a bounded time, serially and in the background, and what came of it.

All openings have one seed, and are the first that it gives out, whatever the ``random_state`` of the stream.
The global generators are seeded as those of a pool's first worker are, so a stream that draws from them gives
the same items here as there.

A stream may block for ever. An opening takes no further item after `seconds`, and is given up when the next
one does not come for as long again. Then a worker process is ended. What is opened serially runs on a daemon
thread, which cannot be ended: it goes on until its next item comes.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
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
from .comparing import difference
from .items import n_bytes
from .parts import of_arguments

__all__ = ["Failure", "Opening", "Where", "in_background", "serially"]

T = TypeVar("T")

ENTROPY: Final = 20_250_101  # any number
MAX_BYTES: Final = 1 << 27  # of the items of one opening that are kept
MAX_CALLS: Final = 16  # of generator functions whose arguments are looked at


_FOLDER: Final = str(Path(__file__).parents[2]) + os.sep  # of pescador


class Failure(NamedTuple):
    """An exception that a stream raised."""

    text: str
    place: str
    """File and line; empty if they are not known."""

    def told(self) -> str:
        """Return all that is known of it."""
        return f"{self.text} ({self.place})" if self.place else self.text

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception, which is not kept: it would keep what its frames refer to."""
        text, _, stack = describe_error(error).partition(" Its stack:")  # of a worker that stalled
        cause = error.__cause__
        with suppress(Exception):  # an exception may be of any class
            if not stack:
                stack = cause.text if isinstance(cause, RemoteTraceback) else _traceback(error)
            text = ". ".join([text, *getattr(error, "__notes__", ())])
        places = re.findall(r'(?m)^ *File "(.+?)", line (\d+)', stack)
        ours = [place for place in places if not place[0].startswith(_FOLDER)] or places
        return cls(text, ":".join(ours[0 if "most recent call first" in stack else -1]) if ours else "")


class Where(NamedTuple):
    """In which background a stream is opened."""

    how: str
    backend: str
    n_workers: int


@dataclass
class Opening:
    """One opening of a stream, and what came out of it."""

    how: str
    items: list[Any] = field(default_factory=list)
    """Copies, which the stream cannot change any more; until they were compared."""
    seconds: list[float] = field(default_factory=list)
    """How long each item was waited for."""
    has_ended: bool = False
    error: Failure | None = None
    is_late: bool = False
    """Whether an item did not come in time."""
    is_given_up: bool = False
    """Whether nobody waits for it any more."""
    origins: list[tuple[Streamer[Any], int]] = field(default_factory=list)
    """For each item the stream that made it, and which of its items it is; behind them, what raised."""
    close_error: Failure | None = None
    refilled: int | None = None
    """The number of the first item that changed when the next one was made."""
    calls: list[tuple[Streamer[Any], Any, Any]] = field(default_factory=list)
    """Streams that were opened, and snapshots of their own arguments, from before and after."""
    used: list[str] = field(default_factory=list)
    """Global random generators that were drawn from, or seeded."""
    warnings: list[warnings.WarningMessage] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)

    def take(
        self, items: Iterator[Any], n: int, seconds: float, look: Callable[[Any], Any] = lambda item: item
    ) -> None:
        """Take n items, or as many as come in time and find room; keep what `look` returns of them."""
        end, size = time.perf_counter() + seconds, 0
        try:
            while len(self.items) < n and size < MAX_BYTES and time.perf_counter() < end:
                begun = time.perf_counter()
                item = next(items)
                if self.is_given_up:
                    return
                self.seconds.append(time.perf_counter() - begun)
                size += n_bytes(item)
                self.items.append(look(item))
        except StopIteration:
            self.has_ended = True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.is_late = isinstance(error, WorkerError) and "(stall_timeout=" in str(error)
            self.error = Failure.of(error)


def in_background(stream: Streamer[Any], where: Where, n: int, seconds: float) -> Opening:
    """Open a stream on workers, and take n items at most."""
    opening = Opening(where.how)
    seed = _seed_of(stream)
    with _surroundings(seed, opening):
        try:
            with (
                ParallelStreamer(stream, where.backend, where.n_workers, stall_timeout=seconds) as parallel,
                closing(parallel.open(Context(seed), n)) as items,
            ):
                opening.take(items, n, seconds)
                opening.stats = parallel.stats()
        except Exception as error:  # there is no memory for a ring, for example
            opening.error = opening.error or Failure.of(error)
    return opening


def serially(
    stream: Streamer[Any], n: int, seconds: float, watch: Callable[[Any], None] | None = None
) -> Opening:
    """Open a stream without workers, on a thread of its own, and take n items at most.

    Parameters
    ----------
    stream : Streamer
    n : int
    seconds : float
    watch : callable, optional
        Is called with each item as the generator gives it. If it is not given, buffers and arguments are not
        watched either, so that the time is that of the stream.
    """
    opening = Opening("serially")
    seed = _seed_of(stream)
    tracker = _Tracker(opening, watch is not None)
    given: list[Any] = []  # the last item, and a copy of it

    def look(item: Any) -> Any:
        tracker.begin_next()
        if watch is not None:
            if given and opening.refilled is None and difference(*given) is not None:
                opening.refilled = len(opening.items) - 1
            watch(item)
        given[:] = item, _copy(item)
        return given[1]

    def run() -> None:
        items = tracker.open(stream, seed, None)
        try:
            opening.take(items, n, seconds, look)
        except KeyboardInterrupt as error:  # of the stream's own: a Ctrl-C comes to the main thread
            opening.error = Failure.of(error)
        given.clear()
        try:
            items.close()
        except BaseException as error:
            opening.close_error = Failure.of(error)

    with _surroundings(seed, opening):
        thread = threading.Thread(target=copy_context().run, args=(run,), name="pescador-check", daemon=True)
        thread.start()
        try:
            if not in_slices(lambda slice_: _joined(thread, slice_), 2 * seconds):
                opening.is_late = True
        finally:
            opening.is_given_up = True
    opening.calls = [(inner, before, of_arguments(*own)) for inner, before, own in tracker.calls]
    return opening


class _Tracker(Opener):
    """Opens streams in this thread, and notes which of them each item comes from."""

    def __init__(self, opening: Opening, records: bool) -> None:
        self._origins = opening.origins
        self._records = records  # the arguments of generator functions
        self._is_known = False  # where the next item comes from
        self.calls: list[tuple[Streamer[Any], Any, Any]] = []

    def begin_next(self) -> None:
        """Expect an item again."""
        self._is_known = False

    def open(
        self, streamer: Streamer[T], seed: Seed, max_iter: int | None, state: State | None = None
    ) -> Generator[T, None, None]:
        """Return an iterator over a stream; those below it are opened here, too."""
        watched = streamer
        if self._records and type(streamer) is Streamer and isinstance(streamer.streamer, FunctionType):
            watched = Streamer(self._recording(streamer), *streamer.args, **streamer.kwargs)
        return self._followed(streamer, watched.open(Context(seed, self), max_iter, state))

    def _followed(self, streamer: Streamer[T], items: Generator[T, None, None]) -> Generator[T, None, None]:
        number = 0
        with closing(items):
            while True:
                try:
                    item = next(items)
                except StopIteration:
                    return
                except Exception:
                    self._note(streamer, number)
                    raise
                self._note(streamer, number)
                number += 1
                yield item

    def _note(self, streamer: Streamer[Any], number: int) -> None:
        if not self._is_known:  # or it comes from a stream below this one
            self._is_known = True
            self._origins.append((streamer, number))

    def _recording(self, streamer: Streamer[Any]) -> Callable[..., Any]:
        """Return the function of a stream, whose calls are noted with the arguments that they get."""
        function: Any = streamer.streamer

        @wraps(function)
        def recording(*args: Any, **kwargs: Any) -> Any:
            if len(self.calls) < MAX_CALLS:
                self.calls.append((streamer, of_arguments(args, kwargs), (args, kwargs)))
            return function(*args, **kwargs)

        return recording


def _seed_of(stream: Streamer[Any]) -> Seed:
    return Seed(ENTROPY, numbers={source.key: 0 for source in stream._sources})


@contextmanager
def _surroundings(seed: Seed, opening: Opening) -> Iterator[None]:
    """Seed the global generators, catch warnings, note what was used, and put all as it was."""
    states, python = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002  # it is about them
    torch: Any = sys.modules.get("torch")
    with ExitStack() as stack:
        if torch is not None:
            devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        try:
            seed_globals(seed.child(WORKER, 0))
            before = _global_states()
            yield
            after = _global_states()
            opening.used = [name for name in before if before[name] != after[name]]
            opening.warnings = caught
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


def _joined(thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _copy(item: Any) -> Any:
    try:
        return deepcopy(item)
    except Exception:  # a lock, for example
        return item
