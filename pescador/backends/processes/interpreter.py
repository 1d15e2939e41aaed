"""Starting an interpreter like this one: command line, environment, and how it hashes.

It imports what this one would import, has its flags, and hashes strings as all interpreters do that this
process starts. It runs nothing of the user's script.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]  # no public one
from typing import Any

from ...exceptions import PescadorError
from ...interrupts import interrupts_held
from ..system.orphans import command_line
from ..system.pids import pids_are_ours
from ..system.search_path import search_path
from .process import Process, WindowsProcess, discard, end

__all__ = [
    "HASH_SEED",
    "ignore_interrupts",
    "interpreter_environment",
    "interrupts_blocked",
    "python_command",
    "start_interpreter",
]

# Bytes of the search path in a command line. Linux takes 128 KiB as one argument.
MAX_PATH_BYTES = 1 << 16


def start_interpreter(code: str, sockets: Sequence[socket.socket], **given: str) -> Process:
    """Start an interpreter that imports `main`, as the code says, and calls it with descriptors of sockets.

    `given` are more environment variables. While it imports, nothing becomes garbage, and to look for that
    would take a tenth of the time.
    """
    code = f"import gc; gc.disable(); {code}; gc.enable()"
    environment = {**interpreter_environment(), **given}
    if sys.platform == "win32":
        return _start_on_windows(code, sockets, environment)
    descriptors = tuple(sock.fileno() for sock in sockets)
    command = python_command(f"{code}; main(*{descriptors})")
    options = {"pass_fds": descriptors, "stdin": subprocess.DEVNULL, "env": environment}
    try:
        interpreter = _Interpreter(command, **options)
    except PermissionError:
        # A program that gave up its privileges may not find its interpreter by name, but still runs it.
        if command[0] != sys.executable or not pids_are_ours():
            raise
        interpreter = _Interpreter(command, executable="/proc/self/exe", **options)
    interpreter.returncode = 0  # Process reaps it; Popen is not to wait for it, nor to warn of it
    return Process(interpreter.pid)


def _start_on_windows(code: str, sockets: Sequence[socket.socket], environment: dict[str, str]) -> Process:
    command = python_command(f"from {__name__} import shared_sockets; {code}; main(*shared_sockets())")
    base: str = getattr(sys, "_base_executable", sys.executable)
    if command[0] == sys.executable != base:  # the python.exe of a virtual environment only starts another
        environment["__PYVENV_LAUNCHER__"], command[0] = sys.executable, base
    # Ctrl-C is not for the new process.
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    interpreter = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, creationflags=flags)
    process = WindowsProcess(interpreter)
    try:
        assert interpreter.stdin is not None
        with interpreter.stdin as stdin:
            pickle.dump([sock.share(interpreter.pid) for sock in sockets], stdin)  # type: ignore[attr-defined]
    except BaseException:
        end([process], 0)
        raise
    return process


def shared_sockets() -> list[int]:
    """Return, on Windows, the sockets that this process was given."""
    shares = pickle.load(sys.stdin.buffer)
    return [socket.fromshare(share).detach() for share in shares]  # type: ignore[attr-defined]


class _Interpreter(subprocess.Popen[bytes]):
    """A process that has started or is gone: ``Popen`` may fail, for want of memory, once there is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            if self.pid and self.returncode is None:
                discard(self.pid)
                self.returncode = 0
            raise


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Hold back Ctrl-C while a process is started, which itself gets none before it ignores it."""
    with interrupts_held():
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            yield
            return
        held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which is the consumer's business; the first that a process of ours does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


# Command line


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


# Environment


def interpreter_environment() -> dict[str, str]:
    """Return the environment in which an interpreter is started."""
    environment = dict(os.environ)
    if _ignores_environment():
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    return {**environment, "PYTHONHASHSEED": HASH_SEED}


def _ignores_environment() -> bool:
    return bool(sys.flags.ignore_environment or sys.flags.isolated)


def _hash_seed() -> str:
    given = os.environ.get("PYTHONHASHSEED", "")
    is_valid = given.isdecimal() and int(given) < 1 << 32
    return given if is_valid else str(int.from_bytes(os.urandom(4), "little"))


HASH_SEED = _hash_seed()
"""What seeds the hashes of strings in all interpreters that this process starts.

A worker imports this before its environment becomes that of the consumer: it is what the worker itself was
started with, or was forked with, so those that it starts agree with it.
"""
