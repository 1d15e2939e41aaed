"""How the workers of a pool start, and end."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, TypedDict

import ray

from ...exceptions import PescadorError
from ...seeding import Seed
from ..consumer.pool import RecipePool
from ..consumer.recipes import Recipes
from ..protocol import script
from ..system.search_path import search_path
from . import runtime
from .actor import N_THREADS, Place, RayWorker, versions
from .causes import why_not_started
from .commands import Commands
from .handle import RayHandle
from .segments import RaySegment

__all__ = ["Placement", "RayPool"]

logger = logging.getLogger("pescador")

NOTICE_SECONDS = 1.0  # when to tell which worker is waited for
KILLED_SECONDS = 5.0  # for the news that a worker was killed


class Placement(TypedDict, total=False):
    """What Ray is told of a worker."""

    num_cpus: float
    resources: dict[str, float]
    scheduling_strategy: Any
    runtime_env: dict[str, Any]


class RayPool(RecipePool[RayHandle]):
    """Workers that are actors of Ray."""

    workers: list[RayHandle]

    def __init__(
        self,
        session: str,
        n_workers: int,
        placement: Placement,
        start_timeout: float,
        timeout: float | None,
        stall_timeout: float | None,
    ) -> None:
        super().__init__([], Recipes(RaySegment))
        self._timeout = timeout
        self._process = os.getpid()
        self._has_ended = False
        self._session = session
        places = _start(n_workers, placement, start_timeout)
        self._commands = Commands(session)
        for number, (actor, place) in enumerate(places):
            self.workers.append(RayHandle(session, number, actor, place, self._commands, stall_timeout))
        for worker in self.workers:
            worker.start()
        atexit.register(self.close)  # before Ray's own exit function, for that was registered earlier

    def begin(self, seed: Seed) -> None:
        super().begin(seed)
        for worker in self.workers:
            worker.begin(seed)

    def end_workers(self) -> None:
        if self._has_ended or os.getpid() != self._process:
            return
        try:
            if runtime.is_there(self._session):
                _end(self.workers, self._commands, self._timeout)
        finally:
            self._has_ended = True
            atexit.unregister(self.close)
            self._commands.close()
            for worker in self.workers:
                worker.close()
            self._recipes.close()
            runtime.leave(self._session)


def _start(n_workers: int, placement: Placement, seconds: float) -> list[tuple[Any, Place]]:
    """Start actors, and return them, and where they are."""
    # Each is a process of its own, which ends with this one, and is not started again behind our back.
    kind = ray.remote(max_concurrency=N_THREADS, max_restarts=0, max_task_retries=0, **placement)(RayWorker)
    started = time.monotonic()
    actors: list[Any] = []
    try:
        actors += [kind.remote() for _ in range(n_workers)]
        taken_on = script.names(), script.filename(), search_path()
        places = [actor.begin.remote(*taken_on) for actor in actors]
        ready, waiting = ray.wait(places, num_returns=n_workers, timeout=seconds)
        found = [_place(reference) for reference in ready]  # first, for one that failed says more
        if waiting:
            raise _not_scheduled(len(waiting), n_workers, placement, time.monotonic() - started)
        for place in found:
            if place.versions != versions():
                raise PescadorError(
                    f"host {place.host} has {place.versions}, and this process has {versions()}: what one "
                    "makes "
                    "the other must understand, and seeds must give the same. Install the same on all nodes"
                )
        return list(zip(actors, found, strict=True))
    except BaseException:
        for actor in actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        raise


def _place(reference: Any) -> Place:
    try:
        place: Place = ray.get(reference)
    except Exception as error:
        raise PescadorError(f"a Ray worker cannot start: {why_not_started(error)}") from error
    return place


def _not_scheduled(n_missing: int, n_workers: int, placement: Placement, seconds: float) -> PescadorError:
    asked = ", ".join(f"{name}={value!r}" for name, value in placement.items())
    free, all_there = ({**found()} for found in (ray.available_resources, ray.cluster_resources))
    names = ["CPU", *placement.get("resources", {})]
    room = ", ".join(f"{free.get(name, 0):g} of {all_there.get(name, 0):g} {name}" for name in names)
    return PescadorError(
        f"{n_missing} of {n_workers} Ray workers did not start in {seconds:.0f} s. Each asks for {asked}; "
        "free are "
        f"{room}, over all nodes. Use fewer workers, ask for less (num_cpus, resources), add nodes, or wait "
        "longer "
        "(start_timeout)"
    )


def _end(workers: Sequence[RayHandle], commands: Commands, timeout: float | None) -> None:
    """End workers, in so many seconds at most."""
    started = time.monotonic()

    def left(bound: float | None) -> float | None:
        return None if bound is None else max(0.0, started + bound - time.monotonic())

    try:
        for worker in workers:
            worker.command("stop")
        commands.close()
        late = [worker for worker in workers if not worker.join(left(NOTICE_SECONDS))]
        for worker in late:
            until = "until then" if timeout is None else f"for {timeout:g} s at most, as timeout says"
            logger.warning(
                "%s has not ended yet: %s. close() waits for it %s", worker.place, worker.what_runs(), until
            )
        late = [worker for worker in late if not worker.join(left(timeout))]
        _terminate(
            [worker for worker in workers if worker not in late and not worker.was_killed], left(timeout)
        )
    finally:  # also at a Ctrl-C
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(KILLED_SECONDS)


def _terminate(workers: Sequence[RayHandle], seconds: float | None) -> None:
    """Have workers whose loops have ended run their exit functions, and wait for that."""
    ends = [worker.actor.__ray_terminate__.remote() for worker in workers]
    if ends:
        ray.wait(ends, num_returns=len(ends), timeout=seconds)
