"""What a worker process runs: it takes on the surroundings of its consumer, and then obeys it.

The main thread obeys commands and runs generators (see :mod:`..worker.process_loop`). One more thread, the
listener, waits for the consumer to end, upon which it ends this process, and for what comes through the
wake-up socket (see there).
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import socket
import sys
import threading
import traceback
from multiprocessing import current_process
from typing import NoReturn

from ...memory import allocate_with
from ..protocol import messages, script
from ..protocol.connection import Connection
from ..protocol.messages import WANT
from ..protocol.world import Setup
from ..system.owner import Owner, is_dead, this_owner
from ..system.pids import become_subreaper, watch
from ..system.polling import POLLIN, new_poll
from ..system.threads import start_thread
from ..worker.process_loop import ProcessLoop
from .ending import exit_now, exit_orderly, ignore_shared_memory
from .interpreter import ignore_interrupts
from .stacks import report_to

__all__ = ["main"]


def main(*descriptors: int) -> NoReturn:
    """Run a worker in this process, which does nothing else, until it is told to stop; then end it."""
    ignore_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    become_subreaper()
    ignore_shared_memory()
    code = 1
    sock, wakeup = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    connection = Connection(sock)
    try:
        _work(connection, wakeup)
        code = 0
    except (EOFError, ConnectionError):  # the consumer is gone, most likely
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        connection.close()  # first, for exit functions may take long
        allocate_with(None)
        exit_orderly(code)


def _work(connection: Connection, wakeup: socket.socket) -> None:
    try:
        received = connection.receive()
        assert received is not None
        message, handles = received
        running = report_to(handles[0]) if handles else None  # first, for what follows may hang
        setup: Setup
        setup, make_sender = pickle.loads(message)
        consumer = _watch(setup.consumer)
        script.install(*setup.script)
        current_process().authkey = setup.authkey
        setup.world.enter()
        loop = ProcessLoop(connection, make_sender(connection), running)
        loop.probe()
        loop.tells_items = setup.tells_items
        allocate_with(loop.allocate_array)
        _listen(loop, consumer, wakeup)
        try:
            loop.run()
        finally:
            loop.close()
    except BaseException:
        words = traceback.format_exc()[-8000:]
        with contextlib.suppress(OSError, EOFError):
            connection.send_reading(messages.LAST_WORDS, words.encode(errors="replace"))
        raise


def _watch(consumer: Owner) -> int | None:
    """Return a descriptor that tells of the end of the consumer; None where only its sockets do."""
    if consumer.pid_namespace != this_owner().pid_namespace:
        return None  # its number is that of another process here
    descriptor = watch(consumer.pid)
    if is_dead(consumer):  # then the descriptor may be of a process that came to its number
        raise EOFError
    return descriptor


def _listen(loop: ProcessLoop, consumer: int | None, wakeup: socket.socket) -> None:
    """Start the thread that listens to the wake-up socket, and waits for the end of the consumer."""
    wakeup.setblocking(False)
    poll = new_poll()
    poll.register(wakeup, POLLIN)
    if consumer is not None:
        poll.register(consumer, POLLIN)

    def listen() -> None:
        wants: set[tuple[int, ...]] = set()
        try:
            while True:
                # When the main thread is about to send anyway, look again a millisecond later whether it did.
                for descriptor, _ in poll.poll(1 if wants else None):
                    # The consumer alone holds the other end of the pair, which therefore ends with it.
                    if descriptor == consumer or not (data := wakeup.recv(WANT.size << 8)):
                        exit_now(1)
                    wants.update(WANT.iter_unpack(data))  # each was sent in one piece
                wants = {want for want in wants if not loop.wake_up(*want)}
        finally:  # without a listener the end of the consumer would go unnoticed
            exit_now(1)

    start_thread(threading.Thread(target=listen, name="pescador-listener", daemon=True))
