"""An open stream that runs on a worker, seen from the consumer.

It is a queue of what the worker sent, and an account of what it may still send. A worker may produce as many
items as it has *credits* for. It gets `window` credits when the stream opens, and the consumer returns them
as it takes items, half a window at a time; none where the worker has enough for all that the stream may give.

Any thread may use a stream, one at a time. Its worker feeds it (see :mod:`.worker_handle`). A queue is a
deque, whose operations are atomic, so taking an item that is there needs no lock. ``close()`` takes no lock
at all: the garbage collector may call it anywhere, also where this thread already holds one.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ...core import Streamer
from ...exceptions import DataError, PescadorError
from ...opening import State
from ..base import StreamStats
from ..protocol.errors import Unloadable, describe_error

if TYPE_CHECKING:
    from .worker_handle import WorkerHandle

__all__ = ["End", "Failure", "Moved", "RemoteStream", "Snapshot"]

T = TypeVar("T")

# Items that a stream without a `prefetch` may be ahead, divided by how many streams its worker has.
DEFAULT_WINDOW = 16
MIN_WINDOW = 4

# Small items get a larger window: as many as fit in `window_bytes` of the worker, divided likewise.
MAX_WINDOW = 1024


_NOTHING = object()


class End:
    """In a queue: the stream ended."""


class Failure:
    """In a queue: the stream raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Snapshot:
    """In a queue: where the stream stands on its worker after the items before."""

    __slots__ = ("state",)

    def __init__(self, state: State) -> None:
        self.state = state


class Moved:
    """In a queue: what comes after is from another worker."""

    __slots__ = ("worker",)

    def __init__(self, worker: WorkerHandle) -> None:
        self.worker = worker


MARKS: Final = frozenset({End, Failure, Snapshot, Moved})
"""What may be in a queue besides items."""


class RemoteStream(Generic[T]):
    """The consumer's end of one open stream."""

    def __init__(
        self,
        worker: WorkerHandle,
        number: int,
        prefetch: int | None,
        streamer: Streamer[T],
        max_iter: int | None = None,
        state: State | None = None,
    ) -> None:
        self.number = number
        self.began_at: int = state["n"] if state else 0
        # Items that it gives at most.
        self._limit = math.inf if max_iter is None else max(max_iter - self.began_at, 1)
        # Where it stood last: before the items that were taken since, and before those that came since.
        self.snapshot = self.last_snapshot = state
        self.n_received = 0  # items that came
        self.is_over = False  # its end, or failure, has come
        self.failure: Failure | None = None  # with which it ends
        self.opening: tuple[Any, ...] = ()  # what it was opened with, if it may have to be opened again
        self.streamer = streamer
        self.queue: deque[Any] = deque()
        # Of whom the items in the queue are, and who is to produce more. They differ while the one has died
        # and what it had sent is not taken yet.
        self._worker = self.producer = worker
        self._crediting = threading.RLock()  # held while credits change, or their receiver does
        self.window = self._default_window() if prefetch is None else prefetch  # items that it may be ahead
        self._enough = self._enough_taken()  # items taken from which on their credits are returned
        self.adapts = prefetch is None
        self._taken = 0  # items taken whose credits were not returned yet
        self._returned = 0  # the others
        # Counted here, where one thread at a time counts, and not for all streams of a worker.
        self.waited = 0.0  # seconds
        self.n_bytes = 0  # that were delivered
        self.is_closed = False  # nobody takes items from it any more

    @property
    def name(self) -> str:
        """What runs here, for messages."""
        return repr(self.streamer)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            entry = self.queue.popleft() if self.queue else _NOTHING
        except IndexError:  # another thread was faster
            entry = _NOTHING
        if entry is _NOTHING:  # not above, or all that is raised there would seem to come from the IndexError
            entry = self._wait()
        while type(entry) in MARKS:
            if isinstance(entry, End | Failure):
                self._finish()
                if isinstance(entry, End):
                    raise StopIteration
                raise entry.error
            if isinstance(entry, Moved):
                self._go_to(entry.worker)
            elif isinstance(entry, Snapshot):
                self.snapshot = entry.state
            entry = self._wait()
        worker = self._worker
        try:
            item: T = worker.deliver(entry, self)
        except Unloadable as error:
            entry = None  # or its memory would be kept with what is raised here
            raise self._unloadable(error) from error.error
        self._taken += 1
        if self._taken >= self._enough:
            self.return_credits()
        return item

    def _enough_taken(self) -> float:
        return math.inf if self.window >= self._limit else (self.window + 1) // 2

    def _unloadable(self, unloadable: Unloadable) -> DataError:
        """End the stream because of an item; return what to raise."""
        self.close()
        error = unloadable.error
        # Or they would keep the item's memory, which is the worker's, for as long as the error is kept.
        traceback.clear_frames(unloadable.__traceback__)
        traceback.clear_frames(error.__traceback__)
        what = f"an item ({unloadable.kind})" if unloadable.kind else "an item"
        return DataError(
            f"{what} of {self.name} cannot be loaded: {describe_error(error)}. What can be pickled need not "
            "load again in another process; yield arrays, or use backend='thread'"
        )

    def _wait(self) -> Any:
        while True:
            if self.is_closed:
                return End()
            if not self._worker.is_ours():
                raise PescadorError(
                    "this iterator belongs to the process from which this one was forked; iterate over the "
                    "ParallelStreamer again, which opens workers for this process"
                )
            if not self.queue:
                self._worker.wait(self)
            try:
                return self.queue.popleft()
            except IndexError:  # it was closed, or another thread took the item
                continue

    def return_credits(self) -> None:
        """Let the worker produce as many items as were taken."""
        with self._crediting:
            taken, self._taken = self._taken, 0
            self._returned += taken
            if taken and not self.is_closed:
                self.producer.credit(self.number, taken)

    def receive_mark(self, mark: End | Failure | Snapshot) -> None:
        """Put into the queue what is no item; called by the thread that reads."""
        if type(mark) is Snapshot:
            self.last_snapshot = mark.state
        else:
            self.is_over = True
            if self.failure is not None and type(mark) is End:
                mark = self.failure
        self.queue.append(mark)

    def move(self, worker: WorkerHandle, open_again: Callable[[State, int], None]) -> None:
        """Have another worker produce what is still to come, because this one has died.

        Parameters
        ----------
        worker : WorkerHandle
            The other one.
        open_again : callable
            Called with the state after the items that came, and the number of credits.
        """
        with self._crediting:
            self.producer = worker
            if self.is_over:
                return
            n_credits = self.window + self._returned - self.n_received
            state = self.streamer._since(self.last_snapshot, self.began_at + self.n_received)
            self.queue.append(Moved(worker))
            open_again(state, n_credits)

    def allow(self, prefetch: int | None) -> None:
        """Let the stream be ahead by so many items, if those are more than now; None leaves it to us."""
        self.adapts = prefetch is None
        self._enlarge(self._default_window() if prefetch is None else prefetch)

    def _default_window(self) -> int:
        return max(MIN_WINDOW, DEFAULT_WINDOW // (len(self._worker.streams) or 1))

    def widen(self, item_bytes: int) -> None:
        """Enlarge the window for items of this size, if it was left to us."""
        if self.adapts:
            self.adapts = False
            share = self.producer.window_bytes // max(len(self.producer.streams), 1)
            self._enlarge(min(MAX_WINDOW, share // max(item_bytes, 1)))

    def _enlarge(self, window: int) -> None:
        with self._crediting:
            if self.window < min(window, self._limit) and not self.is_closed:
                extra, self.window = window - self.window, window
                self._enough = self._enough_taken()
                self.producer.credit(self.number, extra)

    @property
    def n_items(self) -> int:
        """How many items were delivered."""
        return self._returned + self._taken

    def save(self) -> State | None:
        """Return where the stream stands after the last item that was taken; None if it has ended."""
        if self.is_closed:
            return None
        if self._worker.shares_objects:
            self.streamer.check_restartable()
        return self.streamer._since(self.snapshot, self.began_at + self.n_items)

    def stats(self) -> StreamStats:
        """Return what was delivered so far."""
        return StreamStats(self.name, self.n_items, self.waited, len(self.queue))

    def _finish(self) -> None:
        self.is_closed = True
        self.producer.forget(self)
        self._go_to(self.producer)

    def _go_to(self, worker: WorkerHandle) -> None:
        """Take items of another worker from now on."""
        former, self._worker = self._worker, worker
        if former is not worker:
            former.leave(self)

    def close(self) -> None:
        """Close the stream on its worker, and drop what it produced ahead."""
        if self.is_closed:
            return
        self.is_closed = True
        self.producer.forget(self)
        self.producer.command("close", self.number)
        self.drop()

    def drop(self) -> None:
        """Drop what was produced ahead."""
        while self.queue:
            try:
                entry = self.queue.popleft()
            except IndexError:
                break
            if type(entry) is Moved:
                self._go_to(entry.worker)
            else:
                self._worker.discard(entry)
        self._go_to(self.producer)
