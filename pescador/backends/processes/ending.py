"""What a worker process does at its end: what an interpreter does, and then it ends what it has started.

A worker that is forked ends with :func:`os._exit`, as the children of multiprocessing do, and a spawned one
likewise: nothing of an interpreter is taken apart while threads of it run. So the exit functions are run
here: threads that are no daemons are waited for, executors shut down, managers and temporary folders
removed. Whatever takes its time in that, the consumer bounds, which ends a worker by force when its time
is over.

On Linux a worker, and the process from which workers are forked, is a *subreaper*: a process whose parent
has ended becomes its child. So all that a generator has started, directly or not, is found below its worker
as long as that runs, and after that below the process from which it was forked.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
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

import psutil

__all__ = [
    "become_subreaper",
    "end_all",
    "exit_now",
    "exit_orderly",
    "flush_output",
    "forget_exit_functions",
    "has_ended",
    "ignore_shared_memory",
    "tell",
]

PR_SET_CHILD_SUBREAPER = 36

PATIENCE = 0.3  # seconds in which a process may do something about SIGTERM
LOOK_SECONDS = 0.005

# The parts of the standard library that have work done by threads or processes, which they end when the
# interpreter does: each with the name of what is to be ended.
_EXECUTORS = (
    ("concurrent.futures.thread", "_threads_queues"),
    ("concurrent.futures.process", "_threads_wakeups"),
)


def become_subreaper() -> None:
    """Have processes whose parents end become children of this one, where the system knows that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forget_exit_functions() -> None:
    """Forget, in a process that was forked, what its parent has to do at its end."""
    atexit._clear()
    registry: Any = weakref.finalize
    registry._registry.clear()
    registry._registered_with_atexit = False  # which the next one that is made changes
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

    Before Python 3.13, whoever attaches to shared memory registers it as if he had made it, and his tracker
    destroys it when he ends. That memory may be the consumer's, or of another program. So what a generator
    itself makes, it has to unlink.
    """
    from multiprocessing import resource_tracker  # it imports much, and no consumer needs it

    tracker: Any = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    send = tracker._send

    def send_unless_shared_memory(command: str, name: str, kind: str) -> None:
        if kind != "shared_memory":
            send(command, name, kind)

    tracker._send = send_unless_shared_memory


def exit_orderly(code: int) -> NoReturn:
    """End this process as an interpreter ends, and all that it has started."""
    module: Any = threading
    for function in (module._shutdown, atexit._run_exitfuncs):
        try:
            function()
        except BaseException:
            sys.excepthook(*sys.exc_info())
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """End this process and all that it has started, without running exit functions."""
    try:
        if _has_children():
            tracker = _tracker()
            spared = None if tracker is None else tracker._pid
            end_all(lambda: [child for child in _offspring() if child.pid != spared])
            if tracker is not None:
                _end_tracker(tracker)
        flush_output()
    finally:
        os._exit(code)


def end_all(find: Callable[[], list[psutil.Process]]) -> None:
    """End the processes that are found, also those that are found only when others have ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        give_up = time.monotonic() + PATIENCE
        told: set[int] = set()
        while left := [process for process in find() if _runs(process)]:
            for process in left:
                if process.pid not in told:
                    told.add(process.pid)
                    tell(process, number)
            if time.monotonic() > give_up:
                break
            time.sleep(LOOK_SECONDS)


def tell(process: psutil.Process, number: int) -> None:
    """Send a signal to a process; also one that is stopped sees it."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(ChildProcessError):  # it is the child of another one
        return not os.waitpid(process.pid, os.WNOHANG)[0]
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def has_ended(child: int) -> bool:
    """Whether a child of this process has ended; then it is gone after that."""
    try:
        return bool(os.waitpid(child, os.WNOHANG)[0])
    except ChildProcessError:
        return True


def _has_children() -> bool:
    """Whether this process has any; those that have ended are gone after that."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _offspring() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def _tracker() -> Any:
    """Return the resource tracker of multiprocessing, if it is a child of this process."""
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
            os.kill(tracker._pid, signal.SIGKILL)
            break
        time.sleep(LOOK_SECONDS)


def flush_output() -> None:
    """Write what is still to be printed."""
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # there may be none, or nobody who reads it
            file.flush()
