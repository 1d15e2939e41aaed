"""Starting and ending worker processes.

Workers start in one of three ways, none of which runs the user's script again:

forkserver
    forked from a *zygote*, a process of ours that has imported NumPy and pescador and runs no thread
    of the user's. There is one for each consumer process, as long as it has pools. The default.
spawn
    a fresh interpreter.
fork
    forked from the consumer, which is only safe if that has no threads.

A process is watched through a *pidfd*, which becomes readable when it ends, whoever its parent is and
whatever copies of its sockets are around. Where the system has none (it is Linux that has them), the
end of its socket tells.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]  # no public one
from typing import ClassVar

import psutil

from ..exceptions import ParameterError, PescadorError
from .link import Link
from .orphans import command_line, reclaim_once
from .owner import pids_are_ours, this_owner, watch
from .stall import process_state

__all__ = ["START_METHODS", "Process", "cannot_start", "check_start_method", "end", "python_command"]

START_METHODS = ("forkserver", "spawn", "fork")

# Seconds in which a zygote answers, or ends. On a machine under heavy load one was seen to need 22.
ANSWER_SECONDS = 60


def check_start_method(method: str | None) -> str:
    """Return the start method, or raise ParameterError."""
    if not hasattr(os, "fork"):
        raise PescadorError("worker processes need a POSIX system; use backend='thread' here")
    if method is None:
        return START_METHODS[0]
    if method not in START_METHODS:
        raise ParameterError(f"unknown start_method {method!r}; it must be one of {', '.join(START_METHODS)}")
    return method


class Process(ABC):
    """A worker process, as its consumer sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = watch(pid)
        self._returncode: int | None = None
        self._ended = False
        self._waiting = threading.RLock()

    @abstractmethod
    def _reap(self) -> bool:
        """Take the exit status of the process if it has ended, and return whether it has."""

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, at most so many seconds; return whether it has."""
        deadline = time.monotonic() + timeout
        with self._waiting:
            return self._wait(deadline)

    def _wait(self, deadline: float) -> bool:
        while not self._ended:
            if self.pidfd is not None:
                poll = select.poll()
                poll.register(self.pidfd, select.POLLIN)
                if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                    return False
            if self._reap():
                self._ended = True
                if self.pidfd is not None:
                    os.close(self.pidfd)
                    self.pidfd = None
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(0.005)  # only where there are no pidfds
        return True

    def exit_cause(self) -> str:
        """Return how the process ended, in words."""
        code = self._returncode
        if code is None:
            return "ended"
        if code >= 0:
            return f"exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hints = {
            "SIGKILL": "; did the system run out of memory?",
            "SIGABRT": "; a library gave up, often for want of descriptors, threads or memory",
            "SIGSEGV": "; a fault in compiled code, most likely of a library that the stream uses",
            "SIGBUS": "; is the shared memory full, or a mapped file truncated?",
        }
        return f"was killed by {name}{hints.get(name, '')}"

    def kill(self, number: int) -> None:
        """Send a signal to the process if it has not ended yet."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Child(Process):
    """A process that this one forked or spawned."""

    def _reap(self) -> bool:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else took its exit status
            return True
        if pid:
            self._returncode = os.waitstatus_to_exitcode(status)
        return bool(pid)


class _Grandchild(Process):
    """A process that the zygote forked."""

    def __init__(self, pid: int, zygote: _Zygote) -> None:
        super().__init__(pid)
        self._zygote = zygote

    def _reap(self) -> bool:
        with contextlib.suppress(EOFError, OSError):
            status = self._zygote.ask(f"reap {self.pid}")
            if status == "running":
                return False
            self._returncode = int(status)
        return True


class _Zygote:
    """The consumer's side of the process from which workers are forked; see :mod:`.zygote`."""

    current: ClassVar[_Zygote | None] = None
    # Held more than once when the garbage collector closes another pool meanwhile.
    _lock: ClassVar[threading.RLock] = threading.RLock()  # type: ignore[valid-type]
    _n_users: ClassVar[int] = 0

    def __init__(self) -> None:
        self.owner = this_owner()
        self._link, other = Link.pair()
        descriptor = other.socket.fileno()
        code = f"from pescador.backends.zygote import main; main({descriptor})"
        try:
            with contextlib.closing(other), _interrupts_held():
                self._process = _interpreter(code, (descriptor,))
        except BaseException:
            self._link.end()  # upon which the process ends, if it was started
            raise

    @classmethod
    def acquire(cls) -> _Zygote:
        """Return the zygote of this process, which runs until it is released as often."""
        with cls._lock:
            cls._n_users += 1  # at once, so that nobody ends it meanwhile
            if cls.current is None or cls.current.owner != this_owner() or not cls.current.is_alive():
                zygote = _Zygote()
                cls.current, cls._n_users = zygote, 1
            return cls.current

    @classmethod
    def release(cls, zygote: _Zygote) -> None:
        """Give back what :meth:`acquire` returned."""
        with cls._lock:
            if zygote is not cls.current:
                zygote._end()
                return
            cls._n_users -= 1
            if not cls._n_users:
                cls.current = None
                zygote._end()

    @classmethod
    def replace(cls, zygote: _Zygote) -> _Zygote:
        """Give back a zygote that is dead, and return another."""
        with cls._lock:
            if cls.current is zygote:
                cls.current = None
            cls.release(zygote)
            return cls.acquire()

    def is_alive(self) -> bool:
        return not self._process.wait(0)

    def ask(self, question: str, descriptors: tuple[int, ...] = ()) -> str:
        """Send a request, and return the answer.

        The answer comes through a link of its own, so any thread may ask at any time, also when the
        garbage collector closes a pool while another question is under way.

        Raises
        ------
        PescadorError
            If none comes. Then the zygote is killed, so the next pool starts another.
        """
        here, there = Link.pair()
        with contextlib.closing(here):
            with contextlib.closing(there):
                self._link.send(question.encode(), (there.socket.fileno(), *descriptors))
            if not _comes(here):
                raise self._killed(question)
            answer = here.receive()
        assert answer is not None
        return answer[0].decode()

    def _killed(self, question: str) -> PescadorError:
        """Kill the process, and return what to raise."""
        pid = self._process.pid
        state = process_state(pid)
        end([self._process], 0, signal.SIGKILL)
        return PescadorError(
            f"process {pid}, from which workers are forked, did not answer {question!r} for "
            f"{ANSWER_SECONDS} s (it was {state}), and was killed, which ends all workers that it started. "
            "Did somebody stop it, or is the machine out of memory or overloaded? The next iteration starts "
            "another one; start_method='spawn' does without"
        )

    def _end(self) -> None:
        self._link.end()
        end([self._process], ANSWER_SECONDS)


def _comes(link: Link) -> bool:
    """Wait until there is a message, or the end, on a link; False if there is none in ANSWER_SECONDS."""
    poll = select.poll()
    poll.register(link.socket, select.POLLIN)
    # One second at a time: while this process is stopped (Ctrl-Z), which stops the other, too, one of them
    # passes at most.
    return any(poll.poll(1000) for _ in range(ANSWER_SECONDS))


def _forget_lock() -> None:
    # A fork may find the lock held by a thread that the child does not have.
    _Zygote._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


class Launcher:
    """Starts the workers of one pool."""

    def __init__(self, method: str) -> None:
        reclaim_once()
        self._method = method
        self._zygote = _Zygote.acquire() if method == "forkserver" else None

    def start(self, link: Link, bell: int, ours: tuple[Link, int]) -> Process:
        """Start a worker with its ends of the link and of the bell, which are closed here.

        Our ends are closed in a worker that is forked, or it would not see when they close here.
        """
        descriptors = (link.socket.fileno(), bell)
        process = None
        try:
            if self._zygote is not None:
                return self._start_from_zygote(descriptors)
            with _interrupts_held():
                process = _spawn(descriptors) if self._method == "spawn" else _fork(descriptors, ours)
        except KeyboardInterrupt:
            if process is not None:
                end([process], 0)
            raise
        except (OSError, EOFError, ValueError) as error:
            raise cannot_start(error) from error
        else:
            return process
        finally:
            link.close()
            os.close(bell)

    def _start_from_zygote(self, descriptors: tuple[int, int]) -> Process:
        assert self._zygote is not None
        try:
            answer = self._zygote.ask("fork", descriptors)
        except (OSError, EOFError):  # somebody killed it, and all its workers with it; the next one is fine
            self._zygote = _Zygote.replace(self._zygote)
            answer = self._zygote.ask("fork", descriptors)
        if not answer.isdigit():
            raise OSError(answer)
        return _Grandchild(int(answer), self._zygote)

    def close(self) -> None:
        """To be called when all workers have ended."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            _Zygote.release(zygote)


def cannot_start(error: Exception) -> PescadorError:
    """Return what to raise where a worker cannot be started."""
    return PescadorError(
        f"cannot start a worker process: {str(error) or type(error).__name__}. Are there processes "
        "('ulimit -u'), file descriptors ('ulimit -n') and memory left?"
    )


def _spawn(descriptors: tuple[int, int]) -> Process:
    return _interpreter(f"from pescador.backends.process_main import main; main{descriptors}", descriptors)


def _interpreter(code: str, descriptors: tuple[int, ...]) -> Process:
    process = subprocess.Popen(python_command(code), pass_fds=descriptors, stdin=subprocess.DEVNULL)
    process.returncode = 0  # it is reaped by _Child; nobody is to wait for it, nor to warn of it
    return _Child(process.pid)


def _fork(descriptors: tuple[int, int], consumers: tuple[Link, int]) -> Process:
    _flush()  # or the worker would print once more what is still to be printed here
    pid = os.fork()
    if pid:
        return _Child(pid)
    in_forked_child(lambda: _main(descriptors, consumers))
    raise AssertionError("not reached")


def _main(descriptors: tuple[int, int], consumers: tuple[Link, int]) -> None:
    from .process_main import main

    link, bell = consumers
    link.close()
    os.close(bell)
    main(*descriptors)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C, so that a process which starts meanwhile gets none before it ignores it."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which is the consumer's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def in_forked_child(function: Callable[[], None]) -> None:
    """Run a function and end the process, whatever happens, without running the parent's exit code."""
    code = 1
    try:
        function()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        os._exit(code)


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # there may be none, or nobody who reads it
            file.flush()


def search_path() -> list[str]:
    """Return the entries of ``sys.path`` that Python itself would use."""
    return [entry for entry in sys.path if isinstance(entry, str)]


def python_command(code: str) -> list[str]:
    """Return the command line of an interpreter like this one, marked as ours."""
    if not sys.executable:
        raise PescadorError(
            "this program has no Python interpreter to start workers with; use start_method='fork'"
        )
    return command_line([sys.executable, *_args_from_interpreter_flags()], sys.path, code)


UNBOUNDED = 1e6  # seconds; the most that poll() can take


def end(
    processes: list[Process], timeout: float | None, number: int = signal.SIGTERM, patience: float = 0.5
) -> None:
    """Wait for processes that were asked to end; terminate with a signal, then kill those that don't."""
    deadline = time.monotonic() + (UNBOUNDED if timeout is None else timeout)
    left = [process for process in processes if not process.wait(max(0, deadline - time.monotonic()))]
    for signal_number, seconds in ((number, patience), (signal.SIGKILL, 5.0)):
        # Whatever such a process started goes with it, if need be by SIGTERM.
        offspring = [child for process in left for child in _offspring(process.pid)]
        for process in left:
            process.kill(signal_number)
            if signal_number == signal.SIGTERM:
                process.kill(signal.SIGCONT)  # one that is stopped would not see the other signal
        for child in offspring:
            with contextlib.suppress(psutil.Error, OSError):
                child.send_signal(min(signal_number, signal.SIGTERM))
                child.send_signal(signal.SIGCONT)
        left = [process for process in left if not process.wait(seconds)]


def _offspring(pid: int) -> list[psutil.Process]:
    """Return what a process has started; nothing where that cannot be told."""
    try:
        return psutil.Process(pid).children(recursive=True) if pids_are_ours() else []
    except Exception:
        return []
