"""What a stream costs that it need not: copies, memory, slow ways of sending; and what its bottleneck is."""

from __future__ import annotations

from typing import Any

from ...memory import empty
from ..bench.report import scaled
from .code import references
from .items import View, n_bytes, pickled
from .laws import Subject
from .openings import Opening
from .parts import functions_of
from .report import Finding

__all__ = ["copies", "speed"]

MIN_COPIED = 1 << 16  # bytes an item
MIN_ITEMS, MIN_SECONDS = 10, 0.05  # below which the rates of workers are those of their start
SLOW = 1.5  # so many times as long counts as longer


def copies(subject: Subject, serial: Opening, views: list[View], *others: Opening) -> list[Finding]:
    """Tell of buffers that are filled again, large arrays behind small ones, pickles, and copies."""
    found = []
    if serial.refilled is not None:
        what = "fills one buffer again: an item changes when the next one is made"
        cause = "its generator writes into arrays that it has yielded; in the background each item is copied"
        remedy = "Make a new array each time, or copy items that are kept where the stream runs serially"
        found.append(Finding("note", what, subject.where(serial, serial.refilled), cause, remedy))
    for path, n_bytes_seen, n_bytes_behind in views:
        what = (
            f"an item keeps a large array in memory: {path} has {scaled(n_bytes_seen, 'B')}, and what it "
            f"views has {scaled(n_bytes_behind, 'B')}"
        )
        remedy = "Yield a copy of the part, array[i].copy(), if that array is not needed any longer"
        cause = "a worker process sends the view alone, but who keeps an item of a serial stream keeps all"
        found.append(Finding("warning", what, cause=cause, remedy=remedy))
    large = next(filter(None, map(pickled, serial.items[:5])), None)
    if large is not None:
        path, size = large
        what = f"items go the slow way to another process: pickles of {scaled(size, 'B')}, most of it {path}"
        cause = "only the data of arrays that hold no Python objects is sent without pickling"
        remedy = "Yield dicts of arrays of numbers or of fixed-width texts (dtype 'U20')"
        found.append(Finding("warning", what, cause=cause, remedy=remedy))
    for opening in others:
        copied = opening.stats.get("copied", 0) / max(len(opening.seconds), 1)
        if copied >= MIN_COPIED and (large is None or "thread" in opening.how):
            found.append(_copied(subject, serial, opening, copied))
    return found


def _copied(subject: Subject, serial: Opening, opening: Opening, copied: float) -> Finding:
    what = f"{scaled(copied, 'B')} an item are copied {opening.how}"
    held = "its generator still refers to the arrays when it yields them, by a variable or as parts of others"
    let_go = "Keep no reference to them: yield dict(x=make()), with no variable for the array"
    if "thread" in opening.how:
        if serial.refilled is not None:
            held = "its generator writes into arrays that it has yielded"
            let_go = "Make a new array for each item"
        return Finding("note", what, cause=held, remedy=let_go)
    in_place = any(
        value is empty for function in functions_of(subject.stream) for _, value, _ in references(function)
    )
    if in_place:
        return Finding("note", what, cause=f"they may be made by pescador.empty, but {held}", remedy=let_go)
    remedy = f"Yield dicts of arrays made in shared memory, by pescador.empty(shape, dtype). {let_go}"
    return Finding("note", what, cause="its arrays are made elsewhere than in shared memory", remedy=remedy)


def speed(subject: Subject, items: list[Any], serial: Opening, *others: Opening) -> list[Finding]:
    """Tell the throughput of openings, and what bounds it."""
    making = _seconds(serial)
    if not making:
        return []
    size = sum(map(n_bytes, items)) / len(items)
    rates = [(opening.how, seconds) for opening in (serial, *others) if (seconds := _seconds(opening))]
    cause = f"an item of {scaled(size, 'B')} is made in {scaled(making, 's')}"
    sending = min((seconds for how, seconds in rates if "process" in how), default=0.0)
    if len(serial.seconds) < MIN_ITEMS or making * len(serial.seconds) < MIN_SECONDS:
        rates = rates[:1]
        cause = f"{cause}; {len(serial.seconds)} items are too soon over to tell what sending them takes"
        remedy = (
            "Measure it: python -m pescador bench. Small items are best sent in batches, by buffer_stream"
        )
    elif sending > SLOW * making:
        cause = f"sending is the bottleneck: {cause}, and comes from a worker in {scaled(sending, 's')}"
        remedy = "Send less: arrays of a smaller dtype, in dicts, in batches; see what is copied, too"
    else:
        by_mux = "" if subject.stream.mixes else " of a mux, as RoundRobinMux([stream] * n)"
        cause = f"making items is the bottleneck: {cause}"
        remedy = (
            "In the background, training that takes longer for an item waits for none. If it takes less, use "
            f"more workers{by_mux}"
        )
    what = ", ".join(f"{how} {scaled(1 / seconds, '').strip()} items/s" for how, seconds in rates)
    opening = serial.seconds[0] - making
    if opening > 0.1 + 10 * making:
        cause += f"; before the first item, opening takes {scaled(opening, 's')}"
    return [Finding("note", f"throughput: {what}", cause=cause, remedy=remedy)]


def _seconds(opening: Opening) -> float:
    """Return how long an item takes, those before the first one not counted; 0 if that is not known."""
    later: list[Any] = opening.seconds[1:]
    return sum(later) / len(later) if later else 0.0
