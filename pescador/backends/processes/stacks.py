"""What a worker process was doing when it stalled.

A consumer that has a stall timeout gives each worker shared memory, which also is a file, but on Windows::

    16 bytes  the number of the stream whose generator runs, 0 if none does, and that of the item that it is
              making, if that was asked for; the worker maps them
    text      the stack of every thread, once the worker gets STALL_SIGNAL

The signal ends the worker: its handler writes the stacks, and then hands on to the default action. The
handler is that of :mod:`faulthandler`, in C, so it needs neither the lock of the interpreter nor a thread
that is alive. So the text is complete when the process is gone. A worker that has no handler yet ends just as
well, without a text.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import struct

from ..system import shared_memory

__all__ = ["STALL_SIGNAL", "Report", "report_to"]

# The signals of a user's program are SIGUSR1 and SIGUSR2 (batch systems send them to all processes of a
# job), and the ends of the real-time signals are those that runtimes take for themselves. Where there are no
# real-time signals, as on macOS, it is SIGUSR2 all the same.
STALL_SIGNAL: int = (
    signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGUSR2", signal.SIGTERM)
)

_PLACE = struct.Struct("=QQ")


class Report:
    """The memory, as the consumer sees it, in whichever thread notices the stall."""

    def __init__(self) -> None:
        # Mapped privately means that it is a file where that matters: what faulthandler writes to.
        self.handle, self._memory = shared_memory.create(_PLACE.size, "", copy_on_write=True)

    def read(self) -> tuple[int, str]:
        """Return the number of the stream that ran, and the stacks; called when the worker has ended."""
        number, _ = self.place()
        if isinstance(self.handle, shared_memory.Named):
            return number, ""
        os.lseek(self.handle, _PLACE.size, os.SEEK_SET)
        with open(self.handle, "rb", closefd=False) as file:
            stacks = file.read().decode(errors="replace").strip().split("\n\n")
        stacks.sort(key=lambda stack: not stack.startswith("Current thread"))  # mostly the main thread
        return number, "\n\n".join(stacks)

    def place(self) -> tuple[int, int]:
        """Return the number of the stream that ran, and that of its item."""
        stream, item = _PLACE.unpack(self._memory.data)
        return stream, item

    def close(self) -> None:
        """Close it."""
        shared_memory.close_all([self.handle])


def report_to(handle: shared_memory.Handle) -> memoryview:
    """Have STALL_SIGNAL write the stacks of this process there; return the memory of the numbers."""
    if not isinstance(handle, shared_memory.Named):
        os.lseek(handle, _PLACE.size, os.SEEK_SET)
        faulthandler.unregister(STALL_SIGNAL)  # what a process that was forked inherits
        signal.signal(STALL_SIGNAL, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [STALL_SIGNAL])
        faulthandler.register(STALL_SIGNAL, handle, all_threads=True, chain=True)
    return shared_memory.adopt(handle, _PLACE.size).data.cast("Q")
