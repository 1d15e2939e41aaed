"""Waiting for sockets and descriptors: :func:`select.poll`, and the same for sockets where there is none."""

from __future__ import annotations

import select
from typing import Protocol

__all__ = ["POLLIN", "POLLOUT", "Poll", "new_poll"]

POLLIN: int = getattr(select, "POLLIN", 1)
POLLOUT: int = getattr(select, "POLLOUT", 4)


class HasFileno(Protocol):
    """What can be waited for, beside a number."""

    def fileno(self) -> int: ...


class Poll(Protocol):
    """What :class:`select.poll` does."""

    def register(self, fd: int | HasFileno, eventmask: int = ..., /) -> None: ...
    def modify(self, fd: int | HasFileno, eventmask: int, /) -> None: ...
    def unregister(self, fd: int | HasFileno, /) -> None: ...
    def poll(self, timeout: float | None = ..., /) -> list[tuple[int, int]]: ...


class _SelectPoll:
    """By :func:`select.select`, which Windows has, for sockets."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, fd: int | HasFileno, eventmask: int = POLLIN, /) -> None:
        self._events[fd if isinstance(fd, int) else fd.fileno()] = eventmask

    modify = register

    def unregister(self, fd: int | HasFileno, /) -> None:
        del self._events[fd if isinstance(fd, int) else fd.fileno()]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        readers = [fd for fd, events in self._events.items() if events & POLLIN]
        writers = [fd for fd, events in self._events.items() if events & POLLOUT]
        # A connection that was refused, or that broke, is in the third list alone.
        found = select.select(readers, writers, readers, None if timeout is None else timeout / 1000)
        events: dict[int, int] = dict.fromkeys([*found[0], *found[2]], POLLIN)
        for fd in found[1]:
            events[fd] = events.get(fd, 0) | POLLOUT
        return list(events.items())


def new_poll() -> Poll:
    """Return an object with which to wait."""
    return select.poll() if hasattr(select, "poll") else _SelectPoll()
