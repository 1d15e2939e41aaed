"""How the workers of a pool of processes start, get recipes, and end.

One of them is a :class:`.process_handle.ProcessHandle`. How records, the bodies of large items, get from one
process to the other is up to a transport (see :mod:`..protocol.transport`).
"""

from __future__ import annotations

import contextlib
import logging
import pickle
from abc import abstractmethod
from collections.abc import Sequence
from multiprocessing import current_process
from typing import ClassVar

from ...checks import whole_number
from ...seeding import Seed
from ..base import Backend, Pool
from ..processes.launcher import Launcher, cannot_start, check_start_method
from ..processes.process import Process, end
from ..processes.stacks import Report
from ..protocol import script
from ..protocol.connection import Connection, socket_pair
from ..protocol.transport import Transport
from ..protocol.world import Setup, World
from ..system import blas
from ..system.owner import this_owner
from .pace import Pace
from .pool import RecipePool
from .process_handle import ProcessHandle
from .recipes import Recipes
from .restarts import Replaceable, Restarts

__all__ = ["ProcessBackend"]

logger = logging.getLogger("pescador")


class ProcessBackend(Backend):
    """A backend whose workers are processes.

    Parameters
    ----------
    start_method : {'forkserver', 'spawn', 'fork'}, optional
        How workers start.
    blas_threads : int, 'auto' or None
        How many threads the numeric libraries of a worker use.
    """

    def __init__(self, start_method: str | None = None, blas_threads: blas.Threads = "auto") -> None:
        self.start_method = check_start_method(start_method)
        self.blas_threads = blas_threads
        if blas_threads is not None and not (isinstance(blas_threads, str) and blas_threads == "auto"):
            self.blas_threads = whole_number(blas_threads, "blas_threads", 1, "'auto', None or ")

    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that both sides need: imported once for all workers, and here while the first one starts."""

    @abstractmethod
    def transport(self, connection: Connection) -> Transport:
        """Return what makes the two halves of the transport of one worker."""

    def open(
        self, n_workers: int, *, timeout: float | None, stall_timeout: float | None, max_restarts: int = 0
    ) -> Pool:
        """Start the workers, side by side."""
        try:
            pool = _ProcessPool(self, n_workers, timeout, stall_timeout, max_restarts)
        except (OSError, ImportError) as error:  # the latter for want of memory, most likely
            raise cannot_start(error) from error
        try:
            for number in range(n_workers):
                pool.workers.append(pool.start(number))
        except BaseException:
            pool.end_workers()
            raise
        return pool


def _end(handles: Sequence[ProcessHandle], launcher: Launcher, timeout: float | None) -> None:
    """End workers, as far as they have not ended: what was interrupted may be done again."""
    for handle in handles:
        handle.connection.hang_up()  # which needs no room in the socket, and stops the worker
    processes = [handle.process for handle in handles]

    def tell_who_is_waited_for(left: Sequence[Process]) -> None:
        bound = "until then" if timeout is None else f"for {timeout:g} s at most, as timeout says"
        for handle in handles:
            if handle.process in left:
                logger.warning(
                    "worker process %d has not ended yet: %s. close() waits for it %s",
                    handle.process.pid,
                    handle.what_runs(),
                    bound,
                )

    try:
        end(processes, timeout, notice=tell_who_is_waited_for)
    except BaseException:  # Ctrl-C: they are not waited for any longer
        end(processes, 0)
        raise
    finally:
        for handle in handles:
            handle.close()
        launcher.close()


class _ProcessPool(RecipePool[ProcessHandle]):
    workers: list[ProcessHandle]

    def __init__(
        self,
        backend: ProcessBackend,
        n_workers: int,
        timeout: float | None,
        stall_timeout: float | None,
        max_restarts: int,
    ) -> None:
        super().__init__([], Recipes())
        self._pace = Pace()
        self._backend = backend
        self._n_workers = n_workers
        self._timeout = timeout
        self._stall_timeout = stall_timeout
        self._restarts = Restarts(max_restarts, self._replace) if max_restarts else None
        world = self._world()
        # First, for a process starts, while the rest is made ready here.
        self._launcher = Launcher(backend.start_method, backend.preload, **world.given)
        names = script.names(), script.filename()
        tells_items = self._restarts is not None
        self._setup = Setup(this_owner(), names, bytes(current_process().authkey), world, tells_items)
        self._seed: Seed | None = None  # of the iteration that was begun last

    def _world(self) -> World:
        """Return what surrounds workers now."""
        return World.now(blas.variables(self._backend.blas_threads, self._n_workers))

    def start(self, number: int) -> ProcessHandle:
        """Start a worker."""
        try:
            return self._start(number)
        except OSError as error:
            raise cannot_start(error) from error

    def _start(self, number: int) -> ProcessHandle:
        with contextlib.ExitStack() as undo:
            has_report = self._stall_timeout is not None or self._restarts is not None
            report = undo.enter_context(contextlib.closing(Report())) if has_report else None
            connection, workers_connection = Connection.pair()
            undo.callback(connection.close)
            undo.callback(workers_connection.close)
            wakeup, workers_wakeup = socket_pair()
            undo.callback(wakeup.close)
            undo.callback(workers_wakeup.close)
            theirs, ours = (workers_connection.socket, workers_wakeup), (connection.socket, wakeup)
            process = self._launcher.start(theirs, ours)
            undo.callback(end, [process], 0)
            transport = self._backend.transport(connection)
            message = pickle.dumps((self._setup, transport.make_sender), 5)
            with contextlib.suppress(ConnectionError):  # as of any command, see there
                connection.send(message, handles=() if report is None else [report.handle])
            receiver = transport.make_receiver(connection, process.pidfd)
            handle = ProcessHandle(
                number,
                process,
                connection,
                wakeup,
                receiver,
                self._setup.world,
                self._pace,
                self._stall_timeout,
                report,
                self._restarts,
            )
            undo.pop_all()
            return handle

    def _replace(self, old: Replaceable) -> ProcessHandle | None:
        """Start a worker in the place of one that has ended; None if the pool is closed."""
        end([old.process], 0)  # with what its generators had started
        if self._closed:
            return None
        number = [*self.workers].index(old)  # type: ignore[arg-type]  # it is one of them
        new = self.start(number)
        if self._closed:  # by a signal handler in this thread, for others wait
            end([new.process], 0)
            new.close()
            return None
        self.workers[number] = new
        if self._seed is not None:
            new.begin(self._setup.world, self._seed)
        return new

    @property
    def broken(self) -> bool:
        return self._closed or any(worker.is_dead() and not worker.revive() for worker in list(self.workers))

    def begin(self, seed: Seed) -> None:
        super().begin(seed)
        self._pace.begin()
        world = self._world()
        self._setup, self._seed = self._setup._replace(world=world), seed
        for worker in list(self.workers):
            worker.begin(world, seed)

    def end_workers(self) -> None:
        with contextlib.nullcontext() if self._restarts is None else self._restarts.closing():
            _end(self.workers, self._launcher, self._timeout)
        self._recipes.close()
