"""A Linux that lacks what macOS lacks, and does what macOS does, for pescador alone: a simulated macOS.

Every interpreter that has this folder in its PYTHONPATH runs this at its start, so workers do, too::

    PYTHONPATH=tests/macos python -m pytest tests/backends/test_conformance.py tests/laws tests/faults

- There are no pidfds, but kqueues, of which only what tells of the end of a process is here; no memfds, no
  posix_fallocate, no prctl, no real-time signals, no abstract flags of sockets.
- There is no /proc, no /sys and no /dev/shm, for pescador: psutil, which has code of its own for macOS, sees
  them, and so do the tests, which look there for leaks.
- `sys.platform` is 'darwin', for pescador.
- Sockets of type SEQPACKET do not exist. The buffers of sockets hold 8 KiB. A send on a blocking socket
  blocks, whatever its flags say.
- The name of shared memory has 31 characters at most; its size is set once; it cannot be mapped privately.
"""

import _posixshmem
import builtins
import errno
import importlib.machinery
import mmap
import os
import select
import signal
import socket
import sys

MAX_NAME = 31
BUFFER_BYTES = 4096  # which Linux doubles


class Sys:
    """`sys`, of another platform."""

    platform = "darwin"

    def __getattr__(self, name):
        return getattr(sys, name)

    def __setattr__(self, name, value):
        setattr(sys, name, value)


class Finder:
    """Gives the modules of pescador that `sys`."""

    @staticmethod
    def find_spec(name, path, target=None):
        if name.partition(".")[0] != "pescador":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            if "sys" in vars(module):
                module.sys = Sys()

        spec.loader.exec_module = exec_module
        return spec


def is_hidden(path):
    try:
        path = os.fsdecode(path)
    except TypeError:
        return False
    caller = sys._getframe(2).f_globals.get("__name__", "")
    return f"{path}/".startswith(("/proc/", "/sys/", "/dev/shm/")) and caller.startswith("pescador.")


def hide_files(module, name, refuse):
    original = getattr(module, name)

    def function(path=".", *args, **kwargs):
        return refuse(path) if is_hidden(path) else original(path, *args, **kwargs)

    setattr(module, name, function)


def not_found(path):
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class Kevent:
    def __init__(self, ident, *others):
        self.ident = ident


class Kqueue:
    """Tells of the end of one process, by a pidfd."""

    _pidfd_open = staticmethod(os.pidfd_open)

    def control(self, events, max_events):
        (event,) = events
        self._pidfd = self._pidfd_open(event.ident)
        return []

    def fileno(self):
        return self._pidfd

    def close(self):
        if hasattr(self, "_pidfd"):
            os.close(self._pidfd)


class Socket(socket.socket):
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):  # noqa: A002
        if fileno is None and type == SEQPACKET:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        super().__init__(family, type, proto, fileno)

    def send(self, data, flags=0):
        return super().send(data, int(flags) & ~DONTWAIT)

    def sendmsg(self, buffers, ancillary=(), flags=0, *address):
        return super().sendmsg(buffers, ancillary, int(flags) & ~DONTWAIT, *address)

    def setsockopt(self, level, name, *value):
        if name not in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # so small they stay
            super().setsockopt(level, name, *value)


def socketpair(family=socket.AF_UNIX, type=socket.SOCK_STREAM, proto=0, pair=socket.socketpair):  # noqa: A002
    if type == SEQPACKET:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    ends = pair(family, type, proto)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return tuple(Socket(end.family, end.type, end.proto, end.detach()) for end in ends)


def shm_open(path, flags, mode=0o777, original=_posixshmem.shm_open):
    if len(path) > MAX_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return original(path, flags, mode=mode)


def is_shared_memory(fd):
    return os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/shm/")


def ftruncate(fd, length, original=os.ftruncate):
    if is_shared_memory(fd) and os.fstat(fd).st_size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    original(fd, length)


class Mmap(mmap.mmap):
    def __new__(cls, fileno, length, flags=mmap.MAP_SHARED, *args, **kwargs):
        if fileno >= 0 and not flags & mmap.MAP_SHARED and is_shared_memory(fileno):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return super().__new__(cls, fileno, length, flags, *args, **kwargs)


LACKING = {
    mmap: ["MAP_POPULATE"],
    os: [
        *["pidfd_open", "memfd_create", "posix_fallocate", "posix_fadvise", "pipe2", "eventfd"],
        *["sched_setaffinity", "sched_getaffinity", "splice", "copy_file_range", "setns", "unshare"],
    ],
    select: ["epoll"],
    signal: ["pidfd_send_signal", "SIGRTMIN", "SIGRTMAX", "sigtimedwait", "sigwaitinfo"],
    socket: ["MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK"],
}

SEQPACKET = int(socket.SOCK_SEQPACKET)
DONTWAIT = int(socket.MSG_DONTWAIT)

for module, names in LACKING.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
select.kqueue, select.kevent = Kqueue, Kevent
select.KQ_FILTER_PROC = select.KQ_EV_ADD = select.KQ_NOTE_EXIT = 0
socket.socket, socket.socketpair = Socket, socketpair
_posixshmem.shm_open, os.ftruncate, mmap.mmap = shm_open, ftruncate, Mmap
for place, function in ((builtins, "open"), (os, "listdir"), (os, "statvfs")):
    hide_files(place, function, not_found)
hide_files(os.path, "isdir", lambda path: False)
sys.meta_path.insert(0, Finder)
