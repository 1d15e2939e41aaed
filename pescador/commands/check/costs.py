"""What a stream costs that it need not: copies, memory, slow ways of sending; and what its bottleneck is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ...backends.protocol.codec import Encoder
from ...backends.protocol.pickling import PICKLED
from ...memory import empty
from ..bench.report import scaled
from .comparing import pickle_of
from .openings import THREAD, Opening, Subject
from .parts import parts, references_of
from .report import Finding

__all__ = ["copies", "memory", "pickles", "speed"]

MIN_SENT: Final = 1 << 16  # bytes of an item, pickled or copied
MIN_ITEMS, MIN_SECONDS = 10, 0.05  # below which the rates of workers are those of their start
SLOW: Final = 1.5  # so many times as long counts as longer


def memory(subject: Subject, serial: Opening) -> Iterator[Finding]:
    """Tell of buffers that are filled again, and of arrays that keep a large one in memory."""
    if serial.refilled is not None:
        what = "fills one buffer again: an item changes when the next one is made"
        cause = (
            "its generator writes into arrays that it has yielded, so each item is copied in the background"
        )
        remedy = "Make a new array for each item; or copy the items that you keep of a serial stream"
        yield Finding("note", what, subject.place(serial, serial.refilled), cause, remedy)
    if serial.view is not None:
        path, n_bytes, n_bytes_behind = serial.view
        what = (
            f"an item keeps a large array in memory: {path} has {scaled(n_bytes, 'B')}, and what it "
            f"views has {scaled(n_bytes_behind, 'B')}"
        )
        cause = "a worker process sends the view alone, but who keeps a serial stream's item keeps all"
        remedy = "Yield a copy of the part, array[i].copy(), if that array is not needed any longer"
        yield Finding("warning", what, cause=cause, remedy=remedy)


def pickles(items: list[Any]) -> Iterator[Finding]:
    """Tell if the last item is sent as a large pickle."""
    try:
        layout, pieces = Encoder().encode(item := items[-1])
    except Exception:  # there is none, or it cannot be sent at all, which the opening on a worker tells
        return
    if layout.number != PICKLED or len(pieces[1]) < MIN_SENT:
        return
    sizes = [(len(pickle_of(part) or b""), path) for path, part in parts("item", item)]
    largest = max(sizes, default=(0, "item"))[1]
    what = f"items are sent as pickles of {scaled(len(pieces[1]), 'B')}, most of it {largest}"
    cause = "items go the slow way to another process, unless their arrays hold no Python objects"
    remedy = "Yield dicts of arrays of numbers or of fixed-width texts (dtype 'U20')"
    yield Finding("warning", what, cause=cause, remedy=remedy)


def copies(subject: Subject, serial: Opening, other: Opening) -> Iterator[Finding]:
    """Tell if items are copied in a background, and why."""
    copied = other.stats.get("copied", 0) / max(len(other.seconds), 1)
    if copied < MIN_SENT:
        return
    cause = (
        "its generator still refers to the arrays when it yields them, by a variable or as parts of others"
    )
    remedy = "Keep no reference to them: yield dict(x=make()), with no variable for the array"
    if serial.refilled is not None:
        cause = "its generator writes into arrays that it has yielded"
        remedy = "Make a new array for each item"
    elif other.where is not THREAD and not any(one.value is empty for one in references_of(subject.stream)):
        cause = "its arrays are made elsewhere than in shared memory"
        remedy = f"Make them there, by pescador.empty(shape, dtype), and k{remedy[1:]}"
    yield Finding("note", f"{scaled(copied, 'B')} an item are copied {other.where.how}", "", cause, remedy)


def speed(subject: Subject, serial: Opening, *others: Opening) -> Iterator[Finding]:
    """Tell the throughput of openings, and what bounds it."""
    making = _seconds(serial)
    if not making:
        return
    rates = [(opening, seconds) for opening in (serial, *others) if (seconds := _seconds(opening))]
    sending = min((seconds for opening, seconds in rates[1:] if opening.where is not THREAD), default=0.0)
    size = f" of {scaled(serial.n_bytes / len(serial.seconds), 'B')}" if serial.n_bytes else ""
    cause = f"an item{size} takes {scaled(making, 's')} to make"
    if len(serial.seconds) < MIN_ITEMS or making * len(serial.seconds) < MIN_SECONDS:
        rates = rates[:1]
        cause += f", and {len(serial.seconds)} of them are too few to measure sending"
        remedy = "Take more (n=10_000, -n 10000), or compare backends by python -m pescador bench"
    elif sending > SLOW * making:
        cause = f"sending is the bottleneck: {cause}, and {scaled(sending, 's')} to come from a worker"
        remedy = "Send less: arrays of a smaller dtype, in dicts, in batches; see what is copied, too"
    else:
        cause = f"making items is the bottleneck: {cause}"
        by_mux = "" if subject.stream.mixes else " of a mux, as RoundRobinMux([stream] * n)"
        remedy = f"If your training takes less than that for an item, use more workers{by_mux}"
    what = ", ".join(f"{one.where.how} {scaled(1 / seconds, '').strip()} items/s" for one, seconds in rates)
    yield Finding("note", f"throughput: {what}", "", cause, remedy)


def _seconds(opening: Opening) -> float:
    """Return how long an item takes, those before the first one not counted; 0 if that is not known."""
    later = opening.seconds[1:]
    return sum(later) / len(later) if later else 0.0
