"""The loop of a worker: obeys commands, and runs the generators of its streams in turn.

A command is a tuple: its name and its arguments. There are ``open``, ``credit`` and ``close`` for a stream,
and ``stop`` for the worker; a kind of worker may add others. They are looked for between two slices of work,
and waited for when no stream has credits left. A stream runs for one slice (some items, or a fraction of a
millisecond), then the next one that has credits does. Where slices take long, the stream that the consumer
waits for comes first.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from ...core import Streamer
from ...exceptions import DataError, PescadorError
from ...opening import Context, State
from ...seeding import Seed
from ..protocol.errors import describe_error
from .open_stream import WorkerStream

__all__ = ["Stop", "Unsendable", "WorkerLoop"]

SLICE_ITEMS = 32
SLICE_SECONDS = 200e-6

# Where slices take less, each stream has its turn soon enough, also the one that the consumer waits for.
URGENT_SECONDS = 3e-4


class Stop(BaseException):
    """Raised where the worker is when it is told to stop."""


class Unsendable(Exception):  # noqa: N818  # the error is its cause
    """An item cannot be encoded. Its cause is the exception that encoding it raised."""


class WorkerLoop(ABC):
    """Runs streams until it is told to stop.

    Parameters
    ----------
    running : memoryview or list of two int, optional
        Where the loop writes which stream's generator runs, by its number, 0 if none does, and after that the
        number of the item that it makes, if `tells_items`. A consumer that gives up waiting, or replaces a
        worker, reads it; a memoryview is of memory that both processes have mapped.

    Attributes
    ----------
    commands : dict
        What obeys each command, by its name.
    wanted : int or None
        The number of the stream for which the consumer waits, 0 for any, None if it waits for none, or for a
        message that is under way. Other threads may set it, too. For the order in which streams run it is a
        hint; a process sends by it (see :mod:`.process_loop`).
    waited : float
        Seconds in which no stream could run, because all were as far ahead as they may.
    """

    def __init__(self, running: memoryview | list[int] | None = None) -> None:
        self.running: memoryview | list[int] = [0, 0] if running is None else running
        self.commands: dict[str, Callable[..., None]] = {
            "stop": self._stop,
            "open": self._open,
            "credit": self._credit,
            "close": self._close_number,
        }
        self.tells_items = False
        self.wanted: int | None = None
        self.waited = 0.0
        self._streams: dict[int, WorkerStream] = {}
        self._ready: deque[WorkerStream] = deque()  # those that have credits
        self._last_slice = 0.0  # seconds
        self._last_beginning = math.inf  # the same, of the last stream that began

    @abstractmethod
    def next_command(self, block: bool) -> tuple[Any, ...] | None:
        """Return the next command, None if there is none and `block` is false."""

    @abstractmethod
    def load(self, recipe: Any) -> Streamer[Any]:
        """Return the stream that a recipe describes."""

    @abstractmethod
    def send(self, number: int, item: Any) -> None:
        """Send an item, perhaps together with later ones.

        Raises
        ------
        Unsendable
            If the item cannot be encoded.
        """

    @abstractmethod
    def send_snapshot(self, number: int, state: State) -> None:
        """Send where a stream stands after the items that were sent."""

    @abstractmethod
    def send_end(self, number: int) -> None:
        """Tell that a stream has ended."""

    @abstractmethod
    def send_failure(self, number: int, error: BaseException) -> None:
        """Tell that a stream raised."""

    def flush(self) -> None:
        """Send what was kept to be sent together."""

    def keeps(self, number: int) -> bool:
        """Return whether an item of a stream is kept to be sent with others."""
        return False

    def probe(self) -> None:
        """Have :meth:`send` take an item that nobody else refers to; called before any stream is opened.

        So it learns how many references there are to such an item, and to what is in it, see
        :mod:`.ownership`. The array is a view, to count those to what it views as well.
        """

        def source() -> Generator[Any, None, None]:
            yield {"x": np.ndarray(8, np.uint8, np.zeros(8, np.uint8))}

        self._run_slice(WorkerStream(0, source(), None, 1), 1)

    def run(self) -> None:
        """Work until told to stop."""
        try:
            while True:
                self.obey_commands(block=not self._ready)
                if self._ready:
                    stream = self._next_stream()
                    begins, stream.is_new = stream.is_new, False
                    if begins and self._last_beginning > URGENT_SECONDS:  # this one may take as long
                        self.flush()
                    self.running[0] = stream.number
                    started = time.perf_counter()
                    self._run_slice(stream, 1 if begins else SLICE_ITEMS)
                    ended = time.perf_counter()
                    self._last_slice = ended - started
                    if begins:
                        self._last_beginning = self._last_slice
                    self.running[0] = 0
                    # A consumer that has nothing else to come waits for the first item: it must not be lost
                    # should the worker die while it makes the second one.
                    if begins and len(self._streams) <= 1:
                        self.flush()
                    if ended > stream.save_at and stream.is_open:
                        self._save(stream)
                    self._enqueue(stream)
        except Stop:
            pass
        finally:
            self._close_all()

    def _save(self, stream: WorkerStream) -> None:
        """Send where a stream stands: should it go on elsewhere, only later items are made again."""
        started = time.perf_counter()
        state = stream.save()
        if state is not None:
            self.send_snapshot(stream.number, state)
            stream.save_later(started)

    def _next_stream(self) -> WorkerStream:
        """Return the stream that is to run, which is in the queue no more."""
        wanted = self.wanted
        stream = None
        if wanted and self._last_slice > URGENT_SECONDS and not self.keeps(wanted):
            stream = self._streams.get(wanted)
        # A stream that begins has to take its turn: to begin may last, and others may soon have nothing left.
        if stream is not None and stream.is_ready and not stream.is_new:
            self._ready.remove(stream)
        else:
            stream = self._ready.popleft()
        stream.is_ready = False
        return stream

    def obey_commands(self, block: bool) -> None:
        """Obey all commands that came; if `block`, wait for one first."""
        if block:
            self.flush()
            started = time.perf_counter()
            command = self.next_command(block=True)
            self.waited += time.perf_counter() - started
        else:
            command = self.next_command(block=False)
        while command is not None:
            self.obey(*command)
            command = self.next_command(block=False)

    def obey(self, name: str, *arguments: Any) -> None:
        """Obey one command."""
        self.commands[name](*arguments)

    def _stop(self) -> None:
        raise Stop

    def _open(
        self,
        number: int,
        recipe: Any,
        seed: Seed,
        max_iter: int | None,
        n_credits: int,
        state: State | None = None,
    ) -> None:
        try:
            iterator = self.load(recipe).open(Context(seed), max_iter, state)
        except BaseException as error:
            self.send_failure(number, error)
            return
        n_made = state["n"] if state else 0
        left = None if max_iter is None else max(max_iter - n_made, 0)
        stream = self._streams[number] = WorkerStream(number, iterator, left, n_credits, n_made)
        self._enqueue(stream)

    def _credit(self, number: int, n_credits: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.credits += n_credits
            self._enqueue(stream)

    def _close_number(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self._forget(stream)
            self._close(stream)

    def _run_slice(self, stream: WorkerStream, n_items: int) -> None:
        deadline = time.perf_counter() + SLICE_SECONDS
        number, iterator, send = stream.number, stream.iterator, self.send
        for _ in range(min(stream.credits, n_items)):
            if self.tells_items:
                self.running[1] = stream.n_made
                stream.n_made += 1
            try:
                item = next(iterator)
            except StopIteration:
                self._forget(stream)
                self.send_end(number)
                break
            except BaseException as error:
                self._fail(stream, error)
                break
            stream.credits -= 1
            try:
                send(number, item)  # may obey commands, and so close this very stream
            except Unsendable as error:
                self._fail(stream, self._unsendable(item, error))
                break
            except PescadorError as error:  # there is no memory to send it
                self._fail(stream, error)
                break
            del item
            if not stream.is_open:
                break
            if stream.left is not None:
                stream.left -= 1
                if not stream.left:
                    self._finish(stream)
                    break
            if time.perf_counter() > deadline:
                break

    def _enqueue(self, stream: WorkerStream) -> None:
        if stream.is_open and stream.credits and not stream.is_ready:
            stream.is_ready = True
            self._ready.append(stream)

    def _finish(self, stream: WorkerStream) -> None:
        """End a stream that has given all items it was asked for."""
        self._forget(stream)
        try:
            stream.iterator.close()
        except BaseException as error:
            self.send_failure(stream.number, error)
        else:
            self.send_end(stream.number)

    def _fail(self, stream: WorkerStream, error: BaseException) -> None:
        self._forget(stream)
        self.send_failure(stream.number, error)
        self._close(stream)

    @staticmethod
    def _close(stream: WorkerStream) -> None:
        # Whatever it raises, there is nobody left to tell, and other streams run here.
        with contextlib.suppress(BaseException):
            stream.iterator.close()

    def _forget(self, stream: WorkerStream) -> None:
        stream.is_open = False
        self._streams.pop(stream.number, None)
        if stream.is_ready:
            self._ready.remove(stream)

    def _close_all(self) -> None:
        for stream in list(self._streams.values()):
            self._close_number(stream.number)

    @staticmethod
    def _unsendable(item: Any, unsendable: Unsendable) -> DataError:
        from ...describe import describe  # only needed when something went wrong

        error = unsendable.__cause__
        failure = DataError(
            f"an item cannot be sent to the consumer: {describe(item)}: {describe_error(error)}. "
            "Yield arrays or objects that can be pickled, or use backend='thread'"
        )
        failure.__cause__ = error
        return failure
