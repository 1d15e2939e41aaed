"""The runtime of Ray in this process: there is one at most, and it may be the user's.

One that is there is used, and left alone. If there is none, and the user says where, it is started, or
connected to, and this connection ends with the last pool that uses it. It is to be heard and seen as little
as possible: no log of workers in this terminal, no statistics of usage, no handler of signals, no file in the
user's home, and a local runtime listens on the loopback interface only, and to nobody who does not know its
token.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import auto_init_hook

from ...exceptions import PescadorError

__all__ = ["enter", "is_there", "leave"]

_lock = threading.RLock()
_n_pools: Counter[str] = Counter()  # of each session
_ours = ""  # the session that was begun here last

# Where there is no runtime, most calls of Ray start one. That must not happen to those of a pool whose
# runtime was shut down, so it is switched off while there are pools.
_connects: bool = auto_init_hook.enable_auto_connect

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def enter(address: str | None, n_cpus: float) -> str:
    """Have a runtime; a local one that is started has at least so many CPUs. Return the session."""
    global _ours
    with _lock:
        if not ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS")
            if not address:
                raise PescadorError(
                    "there is no Ray runtime in this process. Call ray.init() before, or say where one is: "
                    "address='auto' for the cluster of this machine, address='host:6379' for its head node, "
                    "or address='local' to start one here, which ends with the ParallelStreamer"
                )
            _begin(address, n_cpus)
            _ours = _session()
        session = _session()
        _n_pools[session] += 1
        auto_init_hook.enable_auto_connect = False
        return session


def is_there(session: str) -> bool:
    """Whether the runtime is still the one of this session."""
    return _session() == session


def leave(session: str) -> None:
    """Take note that a pool has ended; end the runtime if it was the last, and it is ours."""
    with _lock:
        _n_pools[session] -= 1
        if not _n_pools[session]:
            del _n_pools[session]
            if session == _ours and is_there(session):
                ray.shutdown()
        if not _n_pools:
            auto_init_hook.enable_auto_connect = _connects


def _session() -> str:
    """Return what tells the runtime of this process, and this connection to it, from others; '' if none."""
    try:
        context = ray.get_runtime_context()
        return f"{context.get_node_id()}-{context.get_worker_id()}" if ray.is_initialized() else ""
    except Exception:  # another thread shuts it down right now
        return ""


def _begin(address: str, n_cpus: float) -> None:
    options: dict[str, Any] = {}
    if address == "local":
        options.update(
            include_dashboard=False,
            num_cpus=max(os.cpu_count() or 1, math.ceil(n_cpus)),
            _node_ip_address="127.0.0.1",
        )
        # Or Ray would write one to the user's home. It is left there, for Ray remembers it in this process.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with _environment(QUIET), _signals(), _quiet():
        try:
            ray.init(
                address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options
            )
        except Exception as error:
            raise PescadorError(
                f"there is no Ray runtime at address={address!r}, or it cannot be started: "
                f"{type(error).__name__}: {error}"
            ) from error


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables, as far as they are not set, for as long as this is open."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have Ray's logger say nothing but errors."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
