"""The process from which workers are forked.

It has imported what every worker needs, runs one thread, and does what its consumer asks: ``fork`` a
worker that gets the file descriptors of the message, and ``reap`` one that has ended. It ends when its
consumer does, or no longer needs it; workers that are left then end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys

import numpy as np  # noqa: F401  # imported once, for all workers

from . import process_main
from .launch import ignore_interrupts, in_forked_child
from .link import Link, close_all
from .owner import watch

__all__ = ["main"]

PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> None:
    """Serve until the consumer is gone."""
    ignore_interrupts()
    link = Link(socket.socket(fileno=descriptor))
    consumer = watch(os.getppid())
    poll = select.poll()
    poll.register(link.socket, select.POLLIN)
    if consumer is not None:
        poll.register(consumer, select.POLLIN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            if any(descriptor == consumer for descriptor, _ in poll.poll()):
                break
            received = link.receive()
            assert received is not None
            message, (answers, *descriptors) = received
            question, _, argument = message.decode().partition(" ")
            if question == "fork":
                try:
                    answer = str(_fork(link, consumer, answers, descriptors))
                except OSError as error:
                    answer = f"fork failed: {error}"
                finally:
                    close_all(descriptors)
            else:
                answer = _reap(int(argument))
            asker = Link(socket.socket(fileno=answers))
            with contextlib.closing(asker), contextlib.suppress(OSError):  # it no longer wants to know
                asker.send(answer.encode())
    os._exit(0)  # there is nothing to tidy up, and whoever closed the last pool waits


def _fork(link: Link, consumer: int | None, answers: int, descriptors: list[int]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        link.close()
        os.close(answers)
        if consumer is not None:
            os.close(consumer)
        in_forked_child(lambda: _run(parent, *descriptors))
    return pid


def _run(parent: int, link: int, bell: int) -> None:
    # The kernel kills the worker when the zygote ends, also if it is stuck in compiled code.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    process_main.main(link, bell)


def _reap(pid: int) -> str:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "0"
    return str(os.waitstatus_to_exitcode(status)) if ended else "running"
