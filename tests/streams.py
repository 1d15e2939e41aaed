"""Streams that tests share. All of them can be pickled."""

import numpy as np

from pescador import Streamer, streamable


def numbers(n, start=0):
    yield from range(start, start + n)


def noise(n, rng):
    for _ in range(n):
        yield int(rng.integers(1000))


def samples(n, size):
    for i in range(n):
        yield {"x": np.full(size, i, np.float32), "y": i}


def failing(n, error, text="it is broken"):
    yield from range(n)
    raise error(text)


def constant(value):
    while True:
        yield value


@streamable
def countdown(n, step=1):
    """Count down from n."""
    yield from range(n, 0, -step)


class Counting:
    """A sized source that counts how often it was opened, and how many items were taken from it."""

    def __init__(self, n=10**9, value=None):
        self.n = n
        self.value = value
        self.opened = self.taken = self.running = self.closed = 0

    def __deepcopy__(self, memo):
        return self  # so that each opening counts here, and not in a copy of its own

    def __iter__(self):
        self.opened += 1
        self.running += 1
        try:
            for i in range(self.n):
                self.taken += 1
                yield i if self.value is None else self.value
        finally:
            self.running -= 1
            self.closed += 1


class Caller:
    """An object whose ``__call__`` is a generator function, and which has one as a method."""

    def __call__(self, n):
        yield from range(n)

    def method(self, n):
        yield from range(n)


def letters(*lengths):
    """Return streamers of 'aaa', 'bb', ... of the given lengths."""
    return [Streamer(chr(ord("a") + i) * n) for i, n in enumerate(lengths)]
