"""What a worker process was doing when it stalled.

A consumer that has a stall timeout gives each worker a file without a name::

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
import mmap
import os
import signal
import struct
import tempfile
from typing import IO

__all__ = ["STALL_SIGNAL", "Report", "report_to"]

# The signals of a user's program are SIGUSR1 and SIGUSR2 (batch systems send them to all processes of a
# job), and the ends of the real-time signals are those that runtimes take for themselves. Where there are no
# real-time signals, as on macOS, it is SIGUSR2 all the same.
STALL_SIGNAL: int = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGUSR2", 0)

_PLACE = struct.Struct("=QQ")


class Report:
    """The file, as the consumer sees it, in whichever thread notices the stall."""

    def __init__(self) -> None:
        # In memory where that can be, for the folder of temporary files may be full.
        if hasattr(os, "memfd_create"):
            self._file: IO[bytes] = open(os.memfd_create("pescador-report"), "w+b", buffering=0)  # noqa: SIM115
        else:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._file.write(_PLACE.pack(0, 0))  # the worker writes on where this ends

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._file.fileno()

    def read(self) -> tuple[int, str]:
        """Return the number of the stream that ran, and the stacks; called when the worker has ended."""
        self._file.seek(0)
        content = self._file.read()
        stacks = content[_PLACE.size :].decode(errors="replace").strip().split("\n\n")
        stacks.sort(key=lambda stack: not stack.startswith("Current thread"))  # mostly the main thread
        return _PLACE.unpack_from(content)[0], "\n\n".join(stacks)

    def place(self) -> tuple[int, int]:
        """Return the number of the stream that ran, and that of its item."""
        stream, item = _PLACE.unpack(os.pread(self.fileno(), _PLACE.size, 0))
        return stream, item

    def close(self) -> None:
        """Close it."""
        self._file.close()


def report_to(descriptor: int) -> memoryview:
    """Have STALL_SIGNAL write the stacks of this process there; return the memory of the numbers."""
    faulthandler.unregister(STALL_SIGNAL)  # what a process that was forked inherits
    signal.signal(STALL_SIGNAL, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [STALL_SIGNAL])
    faulthandler.register(STALL_SIGNAL, descriptor, all_threads=True, chain=True)
    return memoryview(mmap.mmap(descriptor, _PLACE.size)).cast("Q")
