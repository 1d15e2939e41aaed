"""Whether a stream keeps the laws: repeatable, the same in the background, isolated, clean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from ...core import Streamer
from ...isolation import Copies
from .code import RNG_REMEDY, SET_ORDER, Suspect, draws_globally, suspect
from .openings import SERIALLY, THREAD, Opening, Subject, Where
from .parts import Change, Culprit, find_culprit, references_of, walk
from .report import Finding, Level

__all__ = ["clean", "differing", "ends", "global_states", "isolated", "late", "raised", "unpicklable"]

MAX_STREAMS: Final = 8  # below a map that are opened by themselves
MAX_SHOWN: Final = 3  # pieces of evidence of one kind

MAKE_INSIDE: Final = "Make it inside the generator function, or pass it as an argument, which is copied"


def differing(subject: Subject, serial: Opening, other: Opening, changed: Change | None) -> Iterator[Finding]:
    """Tell if two openings differ, and the likely cause, which may be what has changed meanwhile."""
    difference = serial.difference(other)
    if difference is None:
        return
    number, how = difference
    place, stream = subject.place(serial, number), serial.origin(number)[0]
    if other.where is not SERIALLY and other.error and number == len(other.items):
        yield _failing(other, place, number, serial.items[number:])
        return
    what = f"differs {other.where.how} from what it is serially: {how}"
    if other.where is SERIALLY:
        what = f"not repeatable: two openings under the same seed differ: {how}"
    if other.origins and serial.origin(number) != other.origin(number):
        place += f", and in the other opening is {subject.place(other, number)}: another stream was drawn"
        stream = subject.stream
    elif other.where.n_workers < 2 and (below := _differing_below(subject, stream, other.where)):
        stream, own_number = below
        place += f"; by itself, {subject.path(stream)} differs at its item {own_number}"
    found = _evidence(stream, subject.path(stream), changed) or _evidence(subject.stream, subject.name, None)
    cause = "it may depend on " + "; and on ".join(f"{one.what}: {_some(found[one])}" for one in found)
    remedy = ". ".join(one.remedy for one in found)
    if not found:
        cause = "nothing in its code or arguments explains it"
        remedy = (
            "Look for what else it depends on: random numbers of a library, an array of np.empty that is not "
            "filled, a service, other threads"
        )
    yield Finding("error", what, place, cause, remedy)


def _failing(other: Opening, place: str, number: int, items: list[Any]) -> Finding:
    what, cause, remedy = f"fails {other.where.how}, and not serially", other.error, ""
    culprit = None
    if items and other.where is not THREAD:
        culprit = find_culprit(items[0], f"item {number}")
    if culprit is not None:
        cause = f"{culprit.path}, a {culprit.kind}, cannot be pickled: {culprit.error}"
        remedy = "Yield arrays, or what can be pickled; or use backend='thread'"
    return Finding("error", what, place, cause, remedy)


def _differing_below(
    subject: Subject, stream: Streamer[Any], where: Where
) -> tuple[Streamer[Any], int] | None:
    """Return the innermost stream below a map that differs by itself, and its item."""
    found = None
    below = (part for _, part in walk(stream, "") if isinstance(part, Streamer) and part is not stream)
    for part in islice(below, MAX_STREAMS):
        serial = subject.open(SERIALLY, part)
        difference = serial.difference(subject.open(where, part))
        if difference is not None:
            found = serial.origin(difference[0])
    return found


def _evidence(stream: Streamer[Any], path: str, changed: Change | None) -> dict[Suspect, list[str]]:
    """Return on what the items of a stream may depend, and where that was seen."""
    found: dict[Suspect, list[str]] = defaultdict(list)
    if changed is not None:
        found[Suspect("what changes while it runs", MAKE_INSIDE)].append(str(changed))
    for reference in references_of(stream):
        if (suspected := suspect(reference.value)) is not None:
            found[suspected].append(str(reference))
    for inner, part in walk(stream, path):
        if isinstance(part, set | frozenset) and len(part) > 1:
            found[SET_ORDER].append(inner)
        elif isinstance(part, Iterator) and (inner.endswith(".streamer") or Copies().own(part) is part):
            remedy = "Give what the iterator is made of: a list, or a function and its arguments"
            found[Suspect("where an iterator was left, which all openings share", remedy)].append(inner)
    return found


def global_states(subject: Subject, opening: Opening) -> Iterator[Finding]:
    """Tell which global random generators a stream draws from."""
    if opening.used:
        what = f"draws from the global state of {' and '.join(opening.used)}, or seeds it"
        places = [str(one) for one in references_of(subject.stream) if draws_globally(one.value)]
        cause = (
            "that state was another one when the stream had run. Items are the same again only if it is "
            "seeded before each opening and nobody else draws from it; and each worker has one of its own"
        )
        yield Finding("warning", what, _some(places), cause, RNG_REMEDY)


def unpicklable(culprit: Culprit) -> Finding:
    """Tell what cannot be pickled."""
    what = f"cannot be sent to a worker process: {culprit.path} cannot be pickled"
    remedy = f"Pass what it is made of (a path, a number), and make the {culprit.kind} inside the function"
    if isinstance(getattr(culprit.value, "streamer", culprit.value), Iterator):
        remedy = "Give the function and its arguments, Streamer(function, ...), not what it returned"
    remedy += "; or use backend='thread'"
    return Finding("error", what, f"{culprit.path}, a {culprit.kind}", culprit.error, remedy)


def isolated(subject: Subject, opening: Opening, changed: Change | None) -> Iterator[Finding]:
    """Tell what a stream changes: of what all openings share, and of what each has a copy of."""
    if changed is not None:
        level: Level = "warning"
        if changed.old.kind == "file":
            cause = "the file was written meanwhile"
        elif changed.path.startswith(f"{subject.name}."):
            level, cause = (
                "error",
                "it cannot be copied for each opening, or its class says that it need not be",
            )
        else:
            cause = (
                "all openings in a process share what a function refers to as a global, as a default or in "
                "its closure, and those in another process do not"
            )
        yield Finding(level, f"changes what its openings share: {changed}", "", cause, MAKE_INSIDE)
    told = set()
    for recipe, own in opening.changed:
        change = own._replace(path=subject.path(recipe) + own.path)
        if change.old.kind == "file" or change.path in told:
            continue
        told.add(change.path)
        if change.old.kind == "generator":
            what = f"gives the same random numbers at each opening, for it draws from {change.path}"
            cause = "each opening starts from a copy of its arguments, so from the same state"
            yield Finding("warning", what, "", cause, RNG_REMEDY)
        else:
            cause = "nobody else sees it, for each opening has a copy of its arguments, which takes time"
            yield Finding("note", f"changes its argument {change}", "", cause, "Copy it in the function")


def raised(subject: Subject, opening: Opening) -> Iterator[Finding]:
    """Tell what a stream raises, or that it is empty."""
    if opening.error:
        remedy = "Catch it in the generator function, if the stream can go on without that item"
        if "read-only" in opening.error:
            remedy = "Copy an array before changing it: x = x.copy()"
        place = subject.place(opening, len(opening.items))
        yield Finding("error", "raises an exception", place, opening.error, remedy)
    elif not opening.items:
        yield Finding("warning", "gives no items")


def late(subject: Subject, opening: Opening) -> Finding:
    """Tell that an item did not come in time."""
    what = f"item {len(opening.items)} did not come in {subject.seconds:g} s, {opening.where.how}"
    cause = opening.error or "it blocks; a thread of this process still waits for it"
    remedy = "Find what it waits for; if it only takes long, give it longer (seconds=60, --seconds 60)"
    goes_on = opening.where is not SERIALLY and opening.items  # with what came, for its worker was ended
    return Finding("warning" if goes_on else "error", what, "", cause, remedy)


def ends(*openings: Opening) -> Iterator[Finding]:
    """Tell if a stream ignores its end, or raises there; and of what else it warned."""
    for error in dict.fromkeys(opening.close_error for opening in openings if opening.close_error):
        what, remedy = "raises when it is closed before its end", "Let nothing raise in its `finally`"
        yield Finding("error", what, "", error, remedy)
    warned = {str(warning.message): warning for opening in openings for warning in opening.warnings}
    for text, warning in islice(warned.items(), 2 * MAX_SHOWN):
        place = f"{warning.filename}:{warning.lineno}"
        cause, is_ignored, remedy = text.partition("Catch Exception instead")
        if is_ignored:
            yield Finding("error", "ignores its end", place, cause.strip(), is_ignored + remedy)
        else:
            yield Finding("note", f"warns: {warning.category.__name__}: {text}", place)


def clean(first: Opening, *others: Opening) -> Iterator[Finding]:
    """Tell what is left of openings after they were closed.

    What appears in the folders of shared memory and of temporary files may be another program's. It is
    believed only if each opening leaves some.
    """
    all_left = [opening.left for opening in (first, *others)]
    for kind, is_ours in sorted({(one.kind, one.is_ours) for left in all_left for one in left}):
        texts = [sorted(one.text for one in left if one.kind == kind) for left in all_left]
        what = f"{kind}: {_some([text for each in texts for text in each])}"
        if any(texts[1:]) if is_ours else all(texts):
            what = f"leaves something behind when it is closed: {what}"
            remedy = (
                "Close it in a `finally` of the generator function, or by a `with` block around its yields"
            )
            yield Finding("error" if is_ours else "warning", what, remedy=remedy)
        elif is_ours:
            cause = "it may be kept for later openings, by the stream or by a library"
            yield Finding("note", f"the first opening left something: {what}", cause=cause)


def _some(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
