"""How a process that runs a worker ends: as an interpreter does, and then it ends what it has started.

A worker ends with :func:`os._exit`, as the children of multiprocessing do: nothing of an interpreter is
taken apart while threads of it run. So the exit functions are run here: threads that are no daemons are
waited for, executors shut down, managers and temporary folders removed. Whatever takes its time in that, the
consumer bounds: it ends a worker by force when its time is over.

On Linux a worker, and the process from which workers are forked, is a *subreaper*: a process whose parent
has ended becomes its child. So all that a generator has started, directly or not, is found below its worker
as long as that runs, and after that below the process from which it was forked.

A worker that is forked from its consumer inherits the exit functions of that, and must forget them first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing import process as mp_process
from multiprocessing import util as mp_util
from typing import Any, NoReturn

from ..system.pids import KILL, has_ended, offspring, runs, tell

__all__ = [
    "exit_now",
    "exit_orderly",
    "flush_output",
    "forget_exit_functions",
    "ignore_shared_memory",
    "in_forked_child",
]

PATIENCE = 0.3  # seconds in which a process may do something about SIGTERM
LOOK_SECONDS = 0.005

# The parts of the standard library that have work done by threads or processes, which they end when the
# interpreter does: each with the name of what is to be ended.
_EXECUTORS = (
    ("concurrent.futures.thread", "_threads_queues"),
    ("concurrent.futures.process", "_threads_wakeups"),
)


def in_forked_child(function: Callable[[], None]) -> NoReturn:
    """Run a function and end the process, whatever happens, without the exit functions of its parent."""
    code = 1
    try:
        function()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        flush_output()
        os._exit(code)


def forget_exit_functions() -> None:
    """Forget, in a process that was forked, what its parent has to do at its end."""
    atexit._clear()
    registry: Any = weakref.finalize
    registry._registry.clear()
    registry._registered_with_atexit = False  # the next one that is made registers them again
    mp_util._finalizer_registry.clear()  # type: ignore[attr-defined]
    mp_process._children.clear()  # type: ignore[attr-defined]
    atexit.register(mp_util._exit_function)  # type: ignore[attr-defined]
    module: Any = threading
    module._threading_atexits.clear()
    for name, running in _EXECUTORS:
        executors: Any = sys.modules.get(name)
        if executors is not None:  # it registers this when it is imported, which it will not be again
            getattr(executors, running).clear()
            module._register_atexit(executors._python_exit)


def ignore_shared_memory() -> None:
    """Have the resource tracker of multiprocessing leave shared memory alone.

    Before Python 3.13, a process that attaches to shared memory registers it as if it had made it, and its
    tracker destroys it when that process ends. That memory may be the consumer's, or of another program. So
    what a generator itself makes, it has to unlink.
    """
    from multiprocessing import resource_tracker  # it imports much, and no consumer needs it

    tracker: Any = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    send = tracker._send

    def send_unless_shared_memory(command: str, name: str, kind: str) -> None:
        if kind != "shared_memory":
            send(command, name, kind)

    tracker._send = send_unless_shared_memory


def exit_orderly(code: int) -> NoReturn:
    """End this process as an interpreter ends, and all that it has started; called by the main thread."""
    module: Any = threading
    for function in (module._shutdown, atexit._run_exitfuncs):
        try:
            function()
        except BaseException:
            sys.excepthook(*sys.exc_info())
    flush_output()  # not in exit_now(), for a main thread that is blocked in a write holds the lock for it
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """End this process and all that it has started, without running exit functions. Any thread may."""
    try:
        if _has_children():
            tracker = _tracker()
            _end_offspring(spared=None if tracker is None else tracker._pid)
            if tracker is not None:
                _end_tracker(tracker)
    finally:
        os._exit(code)


def _has_children() -> bool:
    """Whether this process has any; those that have ended are reaped."""
    if not hasattr(os, "WNOHANG"):
        return bool(offspring(os.getpid()))
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _end_offspring(spared: int | None) -> None:
    """End what this process has started, also what is found only when its parent has ended."""
    for number in (signal.SIGTERM, KILL):
        give_up = time.monotonic() + PATIENCE
        told: set[int] = set()
        while left := [child for child in offspring(os.getpid()) if child.pid != spared and runs(child)]:
            for process in left:
                if process.pid not in told:
                    told.add(process.pid)
                    tell(process, number)
            if time.monotonic() > give_up:
                break
            time.sleep(LOOK_SECONDS)


def _tracker() -> Any:
    """Return the resource tracker of multiprocessing, if it is a child of this process, else None."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    tracker = None if module is None else module._resource_tracker
    # A process that was forked knows the tracker of its parent.
    if tracker is None or tracker._pid is None or has_ended(tracker._pid):
        return None
    return tracker


def _end_tracker(tracker: Any) -> None:
    """Have the resource tracker, which ignores SIGTERM, remove what it knows, and end."""
    os.close(tracker._fd)  # as nobody else has a copy any more, it sees the end of its pipe
    give_up = time.monotonic() + PATIENCE
    while not has_ended(tracker._pid):
        if time.monotonic() > give_up:
            os.kill(tracker._pid, KILL)
            break
        time.sleep(LOOK_SECONDS)


def flush_output() -> None:
    """Write what is still to be printed."""
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # there may be none, or nobody who reads it
            file.flush()
