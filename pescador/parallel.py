"""ParallelStreamer and ZMQStreamer: a stream that is produced in the background.

The workers are a *pool*, opened by a backend when the first item is asked for and kept until the
ParallelStreamer is closed, collected, or the interpreter ends. With one worker, the whole stream runs
there. With more, the muxes of the tree run in the consumer, and open what they mix on the pool: the
mux is the unit of parallelism, and its sequence does not depend on where its streams run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from inspect import signature
from typing import Any, TypeVar, cast

from . import backends
from .backends.base import WorkerStats
from .checks import did_you_mean, optional_number, whole_number
from .core import Streamer
from .exceptions import ParameterError
from .fingerprint import Parts
from .iteration import saved
from .opening import Context, PoolOpener, State
from .pools import PoolKeeper

__all__ = ["ParallelStreamer", "ZMQStreamer"]

T_co = TypeVar("T_co", covariant=True)
Self = TypeVar("Self", bound="ParallelStreamer[Any]")

MAX_TIMEOUT = 1_000_000  # seconds; what poll() can take


class ParallelStreamer(Streamer[T_co]):
    """Produce a stream in the background.

    It is itself a Streamer, so it may be mixed, mapped and nested. Several iterators may be open at
    once, each used by one thread at a time.

    Parameters
    ----------
    streamer : Streamer or iterable
        What to produce.
    backend : {'shm', 'zmq', 'ray', 'thread', 'serial'} or str
        Where: in a process that hands over large arrays through shared memory, in a process that sends
        everything through a ZeroMQ socket, on the machines of a Ray cluster, in a thread, or not in the
        background at all. Others may be registered, see :mod:`pescador.backends`.
    n_workers : int
        Number of workers.
    prefetch : int, optional
        How many items the background may be ahead of the consumer, at least 1. If not given, 16, or
        more for small items: as many as fit in 8 MiB, up to 1024. The streams of one worker share that,
        with at least 4 items each.
    timeout : float or None
        Seconds that :meth:`close` waits for a worker before it is terminated; None waits without a bound.
        After one second it tells the logger ``pescador`` for which worker it waits, and what that runs.
    stall_timeout : float, optional
        Seconds that the consumer waits for an item while the worker delivers nothing, until WorkerError
        is raised. It says which stream ran, for how long, and the stack of the worker (of every thread of
        it, also in compiled code; none if the process is stopped). The worker process and what it started
        are ended, and the next iteration starts a new one. A thread cannot be ended: it goes on until its
        generator returns; and one whose compiled code keeps Python's lock keeps the consumer from
        noticing. 'serial' has no worker to wait for, and ignores this. By default, the wait is unbounded.
    max_restarts : int
        How many worker processes that died, or stalled, are replaced. A replacement goes on with exactly the
        items that would have come, so the generators have to give the same items again for the same seed. An
        item that ends two workers raises WorkerError. The logger ``pescador`` and :meth:`stats` tell of each.
        When there are more, or by default, a death ends the iteration.
    start_method : {'forkserver', 'spawn', 'fork'}, optional
        How worker processes start. By default they are forked from a clean process that runs no
        threads of yours. It is started by the first pool, and idle from the end of the last one until your
        program ends. On macOS and Windows, each is an interpreter of its own.
    open_ahead : int, optional
        With several workers: how many streams each mux may open before it needs them, so that it does
        not wait while a file loads. `n_workers` if not given.
    **options
        Options of the backend: `ring_bytes` of 'shm'; `min_port`, `max_port`, `max_tries` and `copy` of
        'zmq'; those of 'ray' are in docs/several_machines.md; and of 'shm' and 'zmq' `blas_threads`, how
        many threads the numeric libraries (BLAS, OpenMP, PyTorch) of each worker use: a number, None,
        which leaves them as they are, or 'auto' (the default), which is the number of cores divided by
        `n_workers`, unless variables such as ``OMP_NUM_THREADS`` are set.

    Raises
    ------
    PescadorError
        If a parameter has a value that cannot work. While iterating: what the stream raises, with the
        worker's traceback as its cause, and WorkerError if the worker died or stalled.

    Examples
    --------
    >>> import numpy as np
    >>> from pescador import ParallelStreamer, Streamer
    >>> def ramps(n):
    ...     for i in range(n):
    ...         yield dict(X=np.arange(i, i + 3))
    >>> with ParallelStreamer(Streamer(ramps, 2), backend='shm') as stream:
    ...     for item in stream:
    ...         print(item['X'])
    [0 1 2]
    [1 2 3]
    """

    def __init__(
        self,
        streamer: Streamer[T_co] | Iterable[T_co],
        backend: str = "shm",
        n_workers: int = 1,
        *,
        prefetch: int | None = None,
        timeout: float | None = 5,
        stall_timeout: float | None = None,
        max_restarts: int = 0,
        start_method: str | None = None,
        open_ahead: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(streamer if isinstance(streamer, Streamer) else Streamer(streamer))
        n_workers = whole_number(n_workers, "n_workers", 1)
        prefetch = optional_number(prefetch, "prefetch", 1)
        open_ahead = optional_number(open_ahead, "open_ahead", 0)
        max_restarts = whole_number(max_restarts, "max_restarts", 0)
        if timeout is not None and not (isinstance(timeout, int | float) and 0 <= timeout <= MAX_TIMEOUT):
            raise ParameterError(f"timeout is None or seconds, from 0 to {MAX_TIMEOUT:,}, got {timeout!r}")
        if stall_timeout is not None and not (
            isinstance(stall_timeout, int | float) and 0 < stall_timeout <= MAX_TIMEOUT
        ):
            raise ParameterError(
                f"stall_timeout is None or seconds, above 0 and up to {MAX_TIMEOUT:,}, got {stall_timeout!r}"
            )
        if n_workers > 1 and not self._source.mixes:
            raise ParameterError(
                f"n_workers={n_workers}, but {self.streamer!r} is no mux, and a single generator cannot be "
                "split: the streams that a mux activates are what is spread over workers. For replicas of "
                "the stream, write RoundRobinMux([stream] * n); for shards, a mux of its parts"
            )
        if start_method is not None:
            options["start_method"] = start_method
        self.backend = backend
        self.n_workers = n_workers
        self.prefetch = prefetch
        self.open_ahead = n_workers if open_ahead is None else open_ahead
        self.timeout = timeout
        self.stall_timeout = stall_timeout
        self.max_restarts = max_restarts
        _check_options(backend, options)
        self._pool = PoolKeeper(backend, n_workers, timeout, stall_timeout, max_restarts, options)

    def _counted(self, max_iter: int | None) -> Iterator[T_co]:
        seed = cast("Context", self._context).seed()
        pool = self._pool.get()
        _ = seed.entropy  # drawn now, in the consumer, if it was not yet
        pool.begin(seed)
        if self.n_workers == 1:
            self.stream_ = pool.open(self._source, seed, max_iter, self.prefetch, self._state)
        else:
            opener = PoolOpener(pool, self.prefetch, self.open_ahead)
            self.stream_ = self._source.open(Context(seed, opener), max_iter, self._state)
        self._has_begun = True
        return self._counting(self.stream_, self._state["n"] if self._state else 0)

    # In states and origins there is no ParallelStreamer, but what it runs.
    _is_transparent = True

    def _save(self) -> State:
        if not self._has_begun:
            return self._state or {"n": 0}
        return saved(self.stream_) or {"n": self.n_given}

    def _parts(self) -> Parts:
        return self._source._parts()

    @property
    def _source(self) -> Streamer[T_co]:
        return cast("Streamer[T_co]", self.streamer)

    def _activate(self) -> None:
        """Nothing is open before the pool is."""

    @property
    def mixes(self) -> bool:
        """False: another ParallelStreamer opens this one as a whole, even if it has several workers."""
        return False

    def stats(self) -> dict[str, Any]:
        """Return what was delivered so far, and who waited for whom.

        If the consumer waits much longer than a worker does, more workers help, or a faster producer. If each
        worker waits much longer than the consumer does, the workers are fast enough.

        Returns
        -------
        stats : dict
            ``items``, ``bytes`` (of data that was encoded), ``copied`` (bytes of it that the worker had to
            copy), ``consumer_wait`` and ``worker_wait`` (in seconds), ``queue_depth`` (items that are here
            already), ``streams`` (open now), ``restarts``: sums over the workers; and ``workers``, a list of
            dicts with the same keys, ``pid``, ``host`` (None where all run on this machine) and
            ``open_streams``: of each stream that is open now ``name``, ``items``, ``consumer_wait`` and
            ``queue_depth``.
        """
        workers = [asdict(worker) for worker in self._pool.stats()]
        totals = [key for key in asdict(WorkerStats()) if key not in ("pid", "host", "open_streams")]
        return {**{key: sum(worker[key] for worker in workers) for key in totals}, "workers": workers}

    def close(self) -> None:
        """End the workers. Streams that are open raise; a later iteration starts new workers."""
        self._pool.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _check_options(backend: str, options: Iterable[str]) -> None:
    """Raise ParameterError if there is an option that the backend does not have."""
    known = signature(backends.get(backend)).parameters
    for name in options:
        if name not in known and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
            close = did_you_mean(name, {*known, *signature(ParallelStreamer).parameters} - {"options"})
            raise ParameterError(f"options of backend {backend!r}: there is no option {name!r}{close}")


class ZMQStreamer(ParallelStreamer[T_co]):
    """Produce a stream in a process that sends it through a ZeroMQ socket on the loopback interface.

    Parameters
    ----------
    streamer : Streamer or iterable
        What to produce.
    min_port, max_port : int
        Range from which the port is taken.
    max_tries : int
        How many ports are tried.
    copy : bool
        Whether ZeroMQ copies the data that it sends.
    timeout : float or None
        Seconds that ``close()`` waits for the worker before it is terminated; None waits without a bound.
    **options
        Keywords of :class:`ParallelStreamer`: `n_workers`, `prefetch`, `stall_timeout`, `max_restarts`,
        `start_method`, `open_ahead` and `blas_threads`.

    Examples
    --------
    >>> import pescador
    >>> list(pescador.ZMQStreamer(pescador.Streamer(range, 3)))
    [0, 1, 2]
    """

    def __init__(
        self,
        streamer: Streamer[T_co] | Iterable[T_co],
        min_port: int = 49152,
        max_port: int = 65535,
        max_tries: int = 100,
        copy: bool = False,
        timeout: float | None = 5,
        **options: Any,
    ) -> None:
        if "backend" in options:
            raise ParameterError("the backend of a ZMQStreamer is zmq; for another one, use ParallelStreamer")
        super().__init__(
            streamer,
            backend="zmq",
            timeout=timeout,
            min_port=min_port,
            max_port=max_port,
            max_tries=max_tries,
            copy=copy,
            **options,
        )
