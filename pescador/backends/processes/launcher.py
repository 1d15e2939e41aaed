"""Starting and ending worker processes.

Workers start in one of three ways, none of which runs the user's script again:

forkserver
    forked from a *forkserver*, a process of ours that has imported NumPy and pescador and runs no thread
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
import functools
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]  # no public one
from typing import Any, ClassVar

import psutil

from ...exceptions import ParameterError, PescadorError
from .. import START_FOLDER
from ..protocol.connection import Connection
from ..system.orphans import command_line, reclaim_once
from ..system.owner import pids_are_ours, this_owner, watch
from .ending import flush_output, forget_exit_functions, tell
from .stacks import process_state

__all__ = [
    "START_METHODS",
    "Process",
    "cannot_start",
    "check_start_method",
    "end",
    "hash_seed",
    "interpreter_environment",
    "python_command",
    "search_path",
]

START_METHODS = ("forkserver", "spawn", "fork")

# Seconds in which a forkserver forks a worker. On a machine under heavy load one was seen to need 22.
ANSWER_SECONDS = 60

# Seconds in which it tells how a worker ended, which is worth no longer wait, and in which it ends itself
# when it has no workers.
REAP_SECONDS = 0.3
FORKSERVER_SECONDS = 0.3

# The same where that is to be told, of a worker that died.
CAUSE_SECONDS = 2.0

# Seconds that a process has to end after SIGTERM, and after SIGKILL, which takes longer only where the
# system is slow to give back its memory.
TERMINATE_SECONDS = 0.3
KILL_SECONDS = 5.0

# When to tell that a process is waited for.
NOTICE_SECONDS = 1.0

# A process is waited for in slices, for a Ctrl-C that comes just before a system call does not interrupt it.
SLICE_SECONDS = 1.0

# Bytes of the search path in a command line. Linux takes 128 KiB as one argument.
MAX_PATH_BYTES = 1 << 16


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

    def wait(self, timeout: float | None) -> bool:
        """Wait until the process has ended, at most so many seconds; return whether it has."""
        deadline = _deadline(timeout)
        left = 1.0
        while left and not self._ended:
            left = max(0.0, deadline - time.monotonic())
            if self._wait(min(left, SLICE_SECONDS)):
                self._end()
        return self._ended

    def _wait(self, seconds: float) -> bool:
        """Wait for the end, at most so many seconds; return whether to look for it."""
        pidfd = self.pidfd
        if pidfd is None:
            time.sleep(min(seconds, 0.005))  # only where there are no pidfds
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def _end(self) -> None:
        """Take note that the process may have ended. No thread holds the lock while it waits for that."""
        with self._waiting:
            if not self._ended and self._reap():
                self._ended = True
                if self.pidfd is not None:
                    os.close(self.pidfd)
                    self.pidfd = None

    def exit_cause(self) -> str:
        """Return how the process ended, in words."""
        if not self._ended:
            return "is not used any more"
        code = self._returncode
        if code is None:
            return "ended"
        return f"exited with code {code}" if code >= 0 else self._killed_by(-code)

    def _killed_by(self, number: int) -> str:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hints = {
            "SIGKILL": "; did the system run out of memory?",
            "SIGABRT": "; a library gave up, often for want of descriptors, threads or memory",
            "SIGSEGV": "; a fault in compiled code, most likely of a library that the stream uses",
            "SIGBUS": "; is the shared memory full, or a mapped file truncated?",
        }
        return f"was killed by {name}{hints.get(name, '')}"

    def kill(self, number: int) -> None:
        """Send a signal to the process if it has not ended yet."""
        with self._waiting:  # once it is reaped, its number may be that of another process
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
    """A process that the forkserver forked."""

    def __init__(self, pid: int, forkserver: Forkserver) -> None:
        super().__init__(pid)
        self._forkserver = forkserver
        self._is_orphan = False

    def _reap(self, seconds: float = REAP_SECONDS) -> bool:
        try:
            status = self._forkserver.reap(self.pid, seconds)
        except (EOFError, OSError):
            # The forkserver is gone. The kernel kills its workers with it, and nobody can ask how they ended.
            self._is_orphan = True
            return self.pidfd is not None or not _is_running(self.pid)
        if status == "running":
            return False
        if status:
            self._returncode = int(status)
        return bool(status) or self.pidfd is not None

    def exit_cause(self) -> str:
        if self._ended and self._returncode is None and not self._is_orphan:
            self._reap(CAUSE_SECONDS)  # the forkserver is late
        if self._ended and self._is_orphan:
            return (
                f"was killed by SIGKILL together with process {self._forkserver.pid}, from which workers are "
                f"forked, and which {self._forkserver.exit_cause()}"
            )
        return super().exit_cause()


class Forkserver:
    """The consumer's side of the process from which workers are forked; see :mod:`.forkserver`."""

    current: ClassVar[Forkserver | None] = None
    # Held more than once when the garbage collector closes another pool meanwhile.
    _lock: ClassVar[threading.RLock] = threading.RLock()  # type: ignore[valid-type]
    _n_users: ClassVar[int] = 0

    def __init__(self) -> None:
        self.owner = this_owner()
        self._is_silent = False  # it did not tell how a worker ended
        self._fate = ""  # why it was killed
        self._connection, other = Connection.pair()
        descriptor = other.socket.fileno()
        code = f"from pescador.backends.processes.forkserver_main import main; main({descriptor})"
        try:
            with contextlib.closing(other), _interrupts_held():
                self._process = _interpreter(code, (descriptor,))
        except BaseException:
            self._connection.end()  # upon which the process ends, if it was started
            raise

    @classmethod
    def acquire(cls) -> Forkserver:
        """Return the forkserver of this process, which runs until it is released as often."""
        with cls._lock:
            cls._n_users += 1  # at once, so that nobody ends it meanwhile
            if cls.current is None or cls.current.owner != this_owner() or not cls.current.is_alive():
                forkserver = Forkserver()
                cls.current, cls._n_users = forkserver, 1
            return cls.current

    @classmethod
    def release(cls, forkserver: Forkserver) -> None:
        """Give back what :meth:`acquire` returned."""
        with cls._lock:
            if forkserver is not cls.current:
                forkserver._end()
                return
            cls._n_users -= 1
            if not cls._n_users:
                cls.current = None
                forkserver._end()

    @classmethod
    def replace(cls, forkserver: Forkserver) -> Forkserver:
        """Give back a forkserver that is dead, and return another."""
        with cls._lock:
            if cls.current is forkserver:
                cls.current = None
            cls.release(forkserver)
            return cls.acquire()

    def is_alive(self) -> bool:
        return not self._process.wait(0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_cause(self) -> str:
        self._process.wait(REAP_SECONDS)
        return self._fate or self._process.exit_cause()

    def fork(self, descriptors: tuple[int, ...]) -> str:
        """Start a worker with these descriptors; return its pid, or why there is none.

        Raises
        ------
        PescadorError
            If no answer comes. Then the forkserver is killed, so the next pool starts another.
        """
        answer = self._ask("fork", descriptors, ANSWER_SECONDS)
        if answer is None:
            raise self._killed()
        return answer

    def reap(self, pid: int, seconds: float = REAP_SECONDS) -> str:
        """Return the exit status of a worker, 'running', or nothing if the forkserver does not answer.

        One that did not is not waited for again, unless for longer: it is stopped, most likely.
        """
        waits = seconds > REAP_SECONDS or not self._is_silent
        answer = self._ask(f"reap {pid}", (), seconds if waits else 0)
        self._is_silent = answer is None
        return answer or ""

    def _ask(self, question: str, descriptors: tuple[int, ...], seconds: float) -> str | None:
        """Send a request, and return the answer, None if none comes.

        The answer comes through a connection of its own, so any thread may ask at any time, also when the
        garbage collector closes a pool while another question is under way.
        """
        here, there = Connection.pair()
        with contextlib.closing(here):
            with contextlib.closing(there):
                # Past the queue, where a Ctrl-C might leave it: twice or never is both fine here.
                if not self._connection.send_now(question.encode(), (there.socket.fileno(), *descriptors)):
                    return None  # it is full of questions
            if not _comes(here, seconds):
                return None
            answer = here.receive()
        assert answer is not None
        return answer[0].decode()

    def _killed(self) -> PescadorError:
        """Kill the process, and return what to raise."""
        state = process_state(self.pid)
        self._fate = f"did not answer (it was {state})"
        end([self._process], 0, signal.SIGKILL)
        return PescadorError(
            f"process {self.pid}, from which workers are forked, did not answer 'fork' for "
            f"{ANSWER_SECONDS} s (it was {state}), and was killed, which ends all workers that it started. "
            "Did somebody stop it, or is the machine out of memory or overloaded? The next iteration starts "
            "another one; start_method='spawn' does without"
        )

    def _end(self) -> None:
        self._connection.end()
        end(
            [self._process], 0 if self._is_silent else FORKSERVER_SECONDS, signal.SIGKILL
        )  # it has no workers


def _comes(connection: Connection, seconds: float) -> bool:
    """Wait until there is a message, or the end, on a connection; return whether one came in time."""
    poll = select.poll()
    poll.register(connection.socket, select.POLLIN)
    # One second at a time: while this process is stopped (Ctrl-Z), which stops the other, too, one of them
    # passes at most.
    return any(poll.poll(1000 * min(1, seconds - start)) for start in range(math.ceil(seconds) or 1))


def _forget_lock() -> None:
    # A fork may find the lock held by a thread that the child does not have.
    Forkserver._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


class Launcher:
    """Starts the workers of one pool."""

    def __init__(self, method: str) -> None:
        reclaim_once()
        self._method = method
        self._forkserver = Forkserver.acquire() if method == "forkserver" else None

    def start(self, connection: Connection, wakeup: int, ours: tuple[Connection, int]) -> Process:
        """Start a worker with its ends of the connection and of the wakeup, which are closed here.

        Our ends are closed in a worker that is forked, or it would not see when they close here.
        """
        descriptors = (connection.socket.fileno(), wakeup)
        process = None
        try:
            if self._forkserver is not None:
                return self._start_from_forkserver(descriptors)
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
            connection.close()
            os.close(wakeup)

    def _start_from_forkserver(self, descriptors: tuple[int, int]) -> Process:
        assert self._forkserver is not None
        try:
            answer = self._forkserver.fork(descriptors)
        except (OSError, EOFError):  # somebody killed it, and all its workers with it; the next one is fine
            self._forkserver = Forkserver.replace(self._forkserver)
            answer = self._forkserver.fork(descriptors)
        if not answer.isdigit():
            raise OSError(answer)
        return _Grandchild(int(answer), self._forkserver)

    def close(self) -> None:
        """To be called when all workers have ended."""
        forkserver, self._forkserver = self._forkserver, None
        if forkserver is not None:
            Forkserver.release(forkserver)


def cannot_start(error: Exception) -> PescadorError:
    """Return what to raise where a worker cannot be started."""
    return PescadorError(
        f"cannot start a worker process: {str(error) or type(error).__name__}. Are there processes "
        "('ulimit -u'), file descriptors ('ulimit -n') and memory left?"
    )


def _spawn(descriptors: tuple[int, int]) -> Process:
    return _interpreter(
        f"from pescador.backends.processes.worker_main import main; main{descriptors}", descriptors
    )


def _interpreter(code: str, descriptors: tuple[int, ...]) -> Process:
    command = python_command(code)
    start = functools.partial(
        _Interpreter,
        command,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=interpreter_environment(),
    )
    try:
        process = start()
    except PermissionError:
        # A program that gave up its privileges may not find its interpreter by name, but still runs it.
        if command[0] != sys.executable or not pids_are_ours():
            raise
        process = start(executable="/proc/self/exe")
    process.returncode = 0  # it is reaped by _Child; nobody is to wait for it, nor to warn of it
    return process.child


class _Interpreter(subprocess.Popen[bytes]):
    """A process that has started or is gone: ``Popen`` may fail, for want of memory, once there is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
            self.child = _Child(self.pid)
        except BaseException:
            if self.pid and self.returncode is None:
                _discard(self.pid)
                self.returncode = 0
            raise


def _child(pid: int) -> _Child:
    try:
        return _Child(pid)
    except BaseException:
        _discard(pid)
        raise


def _discard(pid: int) -> None:
    """End a process that has just been started, and that nobody knows of yet."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(descriptors: tuple[int, int], consumers: tuple[Connection, int]) -> Process:
    hash_seed()  # one for all workers, and for those that they may start
    flush_output()  # or the worker would print once more what is still to be printed here
    pid = os.fork()
    if pid:
        return _child(pid)
    in_forked_child(lambda: _main(descriptors, consumers))
    raise AssertionError("not reached")


def _main(descriptors: tuple[int, int], consumers: tuple[Connection, int]) -> None:
    from .worker_main import main

    forget_exit_functions()
    connection, wakeup = consumers
    connection.close()
    os.close(wakeup)
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
        flush_output()
        os._exit(code)


# Interpreters


def python_command(code: str) -> list[str]:
    """Return the command line of an interpreter like this one, marked as ours."""
    flags = _args_from_interpreter_flags()
    if _ignores_environment():  # so would that interpreter its PYTHONHASHSEED; it gets no other such variable
        flags = ["-s" if flag == "-I" else flag for flag in flags if flag != "-E"]
    return command_line([_executable(), *flags], _short_path(), code)


def _executable() -> str:
    """Return the interpreter to start."""
    spawn: Any = sys.modules.get("multiprocessing.spawn")  # where set_executable() keeps it
    chosen = os.fsdecode(spawn.get_executable() or "") if spawn is not None else ""
    if chosen and chosen != sys.executable:
        return chosen
    if sys.executable and not getattr(sys, "frozen", False):
        return sys.executable
    raise PescadorError(
        f"workers need a Python interpreter, and sys.executable is none here ({sys.executable!r}), as in a "
        "frozen application. Name one with multiprocessing.set_executable(), use start_method='fork' (only "
        "safe as long as the program runs no other threads when its workers start), or use backend='thread'"
    )


def _ignores_environment() -> bool:
    return bool(sys.flags.ignore_environment or sys.flags.isolated)


def interpreter_environment() -> dict[str, str]:
    """Return the environment in which an interpreter is started."""
    environment = dict(os.environ)
    if _ignores_environment():
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    return {**environment, "PYTHONHASHSEED": hash_seed()}


_hash_seed = ""


def hash_seed() -> str:
    """Return what seeds the hashes of strings in all interpreters that this process starts.

    In a worker it is called before its environment becomes that of the consumer, and gives the worker's own.
    """
    global _hash_seed
    if not _hash_seed:
        given = os.environ.get("PYTHONHASHSEED", "")
        is_valid = given.isdecimal() and int(given) < 1 << 32
        _hash_seed = given if is_valid else str(int.from_bytes(os.urandom(4), "little"))
    return _hash_seed


def search_path() -> list[str]:
    """Return ``sys.path`` for another process of this consumer.

    As Python itself, it leaves out what is no string. Behind a relative entry comes what it meant in the
    folder where this interpreter started, for the other process may be in another one.
    """
    path: list[str] = []
    for entry in sys.path:
        if isinstance(entry, str):
            path.append(entry)
            if START_FOLDER and not os.path.isabs(entry):
                path.append(os.path.join(START_FOLDER, entry) if entry else START_FOLDER)
    return list(dict.fromkeys(path))


def _short_path() -> list[str]:
    """Return what of the search path fits in a command line, above all what pescador itself needs."""
    path = [entry for entry in search_path() if not entry or os.path.exists(entry)]
    needed = {_entry_of(name) for name in ("pescador", "cloudpickle", "numpy", "psutil", "zmq")}
    chosen: set[str] = set()
    left = MAX_PATH_BYTES
    for entry in sorted(path, key=lambda entry: entry not in needed):
        left -= len(ascii(entry)) + 2
        if left < 0:
            break
        chosen.add(entry)
    return [entry for entry in path if entry in chosen]


def _entry_of(package: str) -> str:
    """Return the entry of the search path where a package was found."""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return os.path.dirname(os.path.dirname(file))


# The end


def end(
    processes: Sequence[Process],
    timeout: float | None,
    number: int = signal.SIGTERM,
    patience: float = TERMINATE_SECONDS,
    notice: Callable[[Sequence[Process]], None] | None = None,
) -> None:
    """Wait for processes that were asked to end; terminate with a signal, then kill those that don't.

    They are waited for side by side. Whatever one that has to be ended has started goes with it, if need be
    by SIGTERM and SIGKILL.

    Parameters
    ----------
    processes : sequence of Process
        Those that were asked.
    timeout : float or None
        Seconds in which they may end by themselves; None is no bound.
    number : int
        What to terminate them with.
    patience : float
        Seconds in which they have to end then.
    notice : callable, optional
        Called with those that are left after NOTICE_SECONDS, if that is not the end of the wait.
    """
    deadline = _deadline(timeout)
    soon = time.monotonic() + NOTICE_SECONDS
    left = _wait_for(processes, min(deadline, soon))
    if left and notice is not None and deadline > soon:
        notice(left)
    left = _wait_for(left, deadline)
    offspring: list[psutil.Process] = []
    for signal_number, seconds in ((number, patience), (signal.SIGKILL, KILL_SECONDS)):
        offspring += [child for process in left for child in _offspring(process.pid)]
        for process in left:
            process.kill(signal_number)
            if signal_number == signal.SIGTERM:
                process.kill(signal.SIGCONT)  # one that is stopped would not see the other signal
        for child in offspring:
            tell(child, min(signal_number, signal.SIGTERM))
        deadline = time.monotonic() + seconds
        left = _wait_for(left, deadline)
        while signal_number != signal.SIGKILL and any(map(_runs, offspring)) and time.monotonic() < deadline:
            time.sleep(0.005)


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


def _wait_for(processes: Sequence[Process], deadline: float) -> list[Process]:
    """Wait for processes until then, and return those that have not ended."""
    for process in processes:
        timeout = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        process.wait(timeout)
    return [process for process in processes if not process.wait(0)]


def _is_running(pid: int) -> bool:
    return process_state(pid) not in ("gone", psutil.STATUS_ZOMBIE)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _offspring(pid: int) -> list[psutil.Process]:
    """Return what a process has started; nothing where that cannot be told."""
    try:
        return psutil.Process(pid).children(recursive=True) if pids_are_ours() else []
    except Exception:
        return []
