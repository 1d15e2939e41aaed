"""The backend: its options."""

from __future__ import annotations

from typing import Any

from ...exceptions import ParameterError
from ..base import Backend, Pool
from . import runtime
from .pool import Placement, RayPool

__all__ = ["RayBackend"]


class RayBackend(Backend):
    """Runs streams on the machines of a Ray cluster.

    Parameters
    ----------
    address : str, optional
        Where the cluster is, if this process has no runtime of Ray yet: ``'host:6379'``, ``'auto'`` for that
        of this machine, or ``'local'`` to start one in this machine, which ends with the last
        ParallelStreamer that uses it. If the process has a runtime, that is used.
    num_cpus : float
        How many CPUs Ray sets aside for each worker.
    resources : dict, optional
        What else Ray sets aside for each worker, by name.
    scheduling_strategy : str or object
        How Ray chooses the node of a worker, as Ray takes it. By default, workers are spread over all nodes.
    runtime_env : dict, optional
        What Ray installs for the workers, or sets in their environment, as Ray takes it.
    start_timeout : float
        Seconds in which all workers have to be there.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: float = 1,
        resources: dict[str, float] | None = None,
        scheduling_strategy: Any = "SPREAD",
        runtime_env: dict[str, Any] | None = None,
        start_timeout: float = 60,
    ) -> None:
        if not isinstance(num_cpus, int | float) or not num_cpus >= 0:
            raise ParameterError(f"num_cpus is a number from 0 on, got {num_cpus!r}")
        if not isinstance(start_timeout, int | float) or not start_timeout > 0:
            raise ParameterError(f"start_timeout is seconds above 0, got {start_timeout!r}")
        if address is not None and not isinstance(address, str):
            raise ParameterError(f"address is text, as 'auto', 'local' or 'host:6379', got {address!r}")
        self._address = address
        self._start_timeout = start_timeout
        self._placement = Placement(num_cpus=num_cpus, scheduling_strategy=scheduling_strategy)
        if resources:
            self._placement["resources"] = resources
        if runtime_env:
            self._placement["runtime_env"] = runtime_env

    def open(
        self, n_workers: int, *, timeout: float | None, stall_timeout: float | None, max_restarts: int = 0
    ) -> Pool:
        """Start the workers, side by side."""
        if max_restarts:
            raise ParameterError(
                f"max_restarts={max_restarts}, but workers on Ray are not replaced: save a state "
                "(state_dict()) now and then, and go on from there"
            )
        session = runtime.enter(self._address, n_workers * self._placement["num_cpus"])
        try:
            return RayPool(session, n_workers, self._placement, self._start_timeout, timeout, stall_timeout)
        except BaseException:
            runtime.leave(session)
            raise
