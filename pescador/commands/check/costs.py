"""What a stream costs that it need not: copies, memory, slow ways of sending; and what its bottleneck is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import numpy as np

from ...backends.protocol.codec import Encoder
from ...backends.protocol.pickling import PICKLED
from ...memory import empty
from ..bench.report import scaled
from .comparing import pickle_of
from .openings import THREAD, Opening, Subject
from .parts import parts, references_of, walk
from .report import Finding

__all__ = ["copies", "memory", "pickles", "speed"]

MAX_PARTS: Final = 1000  # of an item that are looked at
MIN_DRAGGED: Final = 1 << 20  # bytes that are kept for nothing
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
    known = {id(_owner(part)) for _, part in walk(subject.stream, "") if isinstance(part, np.ndarray)}
    for path, part in islice(walk(serial.last, "item"), MAX_PARTS):
        if not isinstance(part, np.ndarray):
            continue
        whole = _owner(part)
        is_kept_anyway = id(whole) in known or isinstance(whole, np.memmap)
        if whole.nbytes - 2 * part.nbytes >= MIN_DRAGGED and not is_kept_anyway:
            what = (
                f"an item keeps a large array in memory: {path} has {scaled(part.nbytes, 'B')}, and what it "
                f"views has {scaled(whole.nbytes, 'B')}"
            )
            cause = (
                "a worker process sends the view alone, but who keeps an item of a serial stream keeps all"
            )
            remedy = "Yield a copy of the part, array[i].copy(), if that array is not needed any longer"
            yield Finding("warning", what, cause=cause, remedy=remedy)
            return


def _owner(array: Any) -> Any:
    """Return the array whose memory an array shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def pickles(item: Any) -> Iterator[Finding]:
    """Tell if an item is sent as a large pickle."""
    try:
        layout, pieces = Encoder().encode(item)
    except Exception:  # it cannot be sent at all, which the opening on a worker tells
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
    cause = f"making an item{size} takes {scaled(making, 's')}"
    if len(serial.seconds) < MIN_ITEMS or making * len(serial.seconds) < MIN_SECONDS:
        rates = rates[:1]
        cause += f", and {len(serial.seconds)} of them are too few to measure sending them"
        remedy = "Take more (n=10_000, -n 10000), or compare backends by python -m pescador bench"
    elif sending > SLOW * making:
        cause = f"sending is the bottleneck: {cause}, and one comes from a worker in {scaled(sending, 's')}"
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
