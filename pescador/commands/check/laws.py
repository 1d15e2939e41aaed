"""Whether a stream keeps the laws: repeatable, the same in the background, isolated, clean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from ...arguments import READ_ONLY
from ...core import Streamer
from ...isolation import Copies
from .code import SET_ORDER, draws_globally, references, suspect
from .comparing import first_difference
from .culprit import Culprit, find_culprit
from .leftovers import Left
from .openings import Opening
from .parts import Change, changes, functions_of, of_arguments, path_of, streams_below, walk
from .report import Finding, Level

__all__ = [
    "Subject",
    "background",
    "clean",
    "compare",
    "ends",
    "few",
    "isolated",
    "late",
    "pickled",
    "raised",
    "repeatable",
]

MAX_DEPTH = 3  # of maps above a stream that is looked for
MAX_STREAMS = 8  # below one map that are opened for that
MAX_SHOWN = 3  # pieces of evidence of one kind

RNG_REMEDY = (
    "Draw from an argument: Streamer(function, rng=pescador.RNG), a Generator of each opening's own seed"
)

Pair = Callable[[Streamer[Any]], tuple[Opening, Opening]]
"""Opens a stream in the two ways that are compared."""


class Subject(NamedTuple):
    """The stream that is checked, and what it is called."""

    stream: Streamer[Any]
    name: str

    def path(self, stream: Streamer[Any]) -> str:
        """Return the path to a stream below it."""
        return path_of(self.stream, self.name, stream) or repr(stream)

    def where(self, opening: Opening, number: int) -> str:
        """Return which item this is, and which of the stream below from which it comes."""
        stream, own_number = self.origin(opening, number)
        if stream is self.stream:
            return f"item {number}"
        return f"item {number}, which is item {own_number} of {self.path(stream)}, {stream!r:.100}"

    def origin(self, opening: Opening, number: int) -> tuple[Streamer[Any], int]:
        """Return which stream made an item of an opening, and which of its items it is."""
        return opening.origins[number] if number < len(opening.origins) else (self.stream, number)


def compare(one: Opening, other: Opening) -> tuple[int, str] | None:
    """Return the number of the first item in which two openings differ, and how they differ."""
    found = first_difference(one.items, other.items)
    if found is not None:
        return found
    number = min(len(one.items), len(other.items))
    ends = [_end_of(opening, number) for opening in (one, other)]
    if None in ends or ends[0] == ends[1]:
        return None
    return number, f"one opening {ends[0]}, and the other {ends[1]}"


def _end_of(opening: Opening, number: int) -> str | None:
    """Return what an opening does after so many items; None if it is not known."""
    if len(opening.items) > number:
        return "goes on"
    if opening.error is not None and not opening.is_late:
        return f"raises {opening.error.text}"
    return "ends" if opening.has_ended else None


def repeatable(
    subject: Subject, one: Opening, other: Opening, changed: Change | None, pair: Pair
) -> list[Finding]:
    """Tell if two openings under one seed differ, and what of it draws from global states.

    Parameters
    ----------
    subject : Subject
    one, other : Opening
    changed : Change or None
        What of the recipe has changed meanwhile.
    pair : callable
        Opens a stream twice in the same way.
    """
    found = []
    difference = compare(one, other)
    if difference is not None:
        number, how = difference
        where, cause, remedy = _explained(subject, one, other, number, changed, pair)
        what = f"not repeatable: two openings under the same seed differ: {how}"
        found.append(Finding("error", what, where, cause, remedy))
    if one.used:
        names = sorted(
            {
                f"{reference.name} ({function.__code__.co_filename}:{reference.line})"
                for function in functions_of(subject.stream)
                for reference in references(function)
                if draws_globally(reference.value)
            }
        )
        what = f"draws from the global state of {' and '.join(one.used)}, or seeds it"
        cause = (
            "its state was another one when the stream had run. What else draws from it changes the items: "
            "they are the same again only if it is seeded before each opening, and others in the background"
        )
        found.append(Finding("warning", what, _some(names), cause, RNG_REMEDY))
    return found


def background(
    subject: Subject, serial: Opening, other: Opening, changed: Change | None, pair: Pair
) -> list[Finding]:
    """Tell if a stream differs in the background."""
    difference = compare(serial, other)
    if difference is None:
        return []
    number, how = difference
    what = f"differs {other.how} from what it is serially: {how}"
    if other.error is None or number < len(other.items):
        where, cause, remedy = _explained(subject, serial, other, number, changed, pair)
    else:
        what = f"fails {other.how}, and not serially"
        where, cause, remedy = subject.where(serial, number), other.error.told(), ""
        culprit = find_culprit(serial.items[number], f"item {number}") if number < len(serial.items) else None
        if culprit is not None and "thread" not in other.how:
            cause = f"{culprit.path}, a {type(culprit.value).__name__}, cannot be pickled: {culprit.error}"
            remedy = "Yield arrays, or what can be pickled; or use backend='thread'"
    return [Finding("error", what, where, cause, remedy)]


def _explained(
    subject: Subject, one: Opening, other: Opening, number: int, changed: Change | None, pair: Pair
) -> tuple[str, str, str]:
    """Return where an item comes from that differs, the likely cause, and the remedy."""
    where = subject.where(one, number)
    stream, path = subject.stream, subject.name
    origins = [subject.origin(opening, number) for opening in (one, other) if opening.origins]
    if len(origins) == 2 and origins[0] != origins[1]:
        where += f", and in the other opening is {subject.where(other, number)}: another stream was drawn"
    else:
        stream = origins[0][0]
        path = subject.path(stream)
    for _ in range(MAX_DEPTH):  # a map gives what the streams below it give
        for inner, below in islice(streams_below(path, stream), MAX_STREAMS):
            openings = pair(below)
            difference = compare(*openings)
            if difference is not None:
                stream, own_number = Subject(below, inner).origin(openings[0], difference[0])
                path = path_of(below, inner, stream) or inner
                where += f"; by itself, {path} differs at its item {own_number}"
                break
        else:
            break
    found = _evidence(stream, path, changed) or _evidence(subject.stream, subject.name, None)
    if not found:
        remedy = (
            "Look for what else it depends on: random numbers of a library, a service, files, other threads"
        )
        return where, "nothing in its code or arguments explains it", remedy
    names = [f"{what}: {_some(names)}" for (what, _), names in found.items()]
    return where, "it depends on " + "; and on ".join(names), ". ".join(remedy for _, remedy in found)


def _evidence(stream: Streamer[Any], path: str, changed: Change | None) -> dict[tuple[str, str], list[str]]:
    """Return what of a stream may make its openings differ: the places, by what it is and the remedy."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    if changed is not None:
        remedy = "Make that inside the generator function, or pass it as an argument, which is copied"
        found["what changes while it runs", remedy].append(f"{changed.path}, which {changed.words()}")
    for function in functions_of(stream):
        for name, value, line in references(function):
            if (suspected := suspect(value)) is not None:
                place = f"{name} ({function.__code__.co_filename}:{line})"
                found[suspected.what, suspected.remedy].append(place)
    for inner, part in walk(stream, path):
        if isinstance(part, set | frozenset) and len(part) > 1:
            found[SET_ORDER.what, SET_ORDER.remedy].append(inner)
        elif isinstance(part, Iterator) and (inner.endswith(".streamer") or Copies().own(part) is part):
            remedy = "Give what the iterator is made of: a list, or a function and its arguments"
            found["where an iterator was left, which all openings share", remedy].append(inner)
    return found


def pickled(culprit: Culprit) -> Finding:
    """Tell what cannot be pickled."""
    kind = type(culprit.value).__name__
    remedy = (
        "Give the function and its arguments, Streamer(function, ...), and no iterator that runs already"
        if isinstance(getattr(culprit.value, "streamer", culprit.value), Iterator)
        else f"Pass what it is made of (a path, a number), and make the {kind} inside the generator function"
    )
    return Finding(
        "error",
        f"cannot be sent to a worker process: {culprit.path} cannot be pickled",
        f"{culprit.path}, a {kind}",
        culprit.error,
        f"{remedy}; or use backend='thread'",
    )


def isolated(subject: Subject, opening: Opening, changed: Change | None) -> list[Finding]:
    """Tell what a stream changes: of what is the caller's, and of what each opening gets a copy of."""
    found = []
    if changed is not None:
        level: Level = "warning"
        if changed.old.kind == "file":
            cause = "the file was written meanwhile"
        elif changed.path.startswith((f"{subject.name}.", f"an entry of {subject.name}.")):
            level = "error"
            cause = "it cannot be copied for each opening, or its class says that it need not be"
        else:
            cause = (
                "openings share what a function refers to as a global, as a default or in its closure; and "
                "what happens to it in a worker process is not seen in others"
            )
        what = f"changes what its openings share: {changed.path}, which {changed.words()}"
        remedy = "Make it inside the generator function, or pass it as an argument that can be copied"
        found.append(Finding(level, what, "", cause, remedy))
    told = set()
    for stream, before, after in opening.calls:
        given = of_arguments(stream.args, stream.kwargs)
        for own in changes(before, after):
            is_given = own.path in given and given[own.path].kind == own.old.kind  # it is no pescador.RNG
            if own.old.kind == "file" or not is_given or (id(stream.streamer), own.path) in told:
                continue
            told.add((id(stream.streamer), own.path))
            path = subject.path(stream) + own.path
            if own.old.kind == "generator":
                what = f"gives the same random numbers at each opening, for it draws from its argument {path}"
                cause = (
                    "each opening starts from a copy of its arguments, so the generator is in the same state"
                )
                found.append(Finding("warning", what, "", cause, RNG_REMEDY))
            else:
                what = f"changes its argument {path}, which {own.words()}"
                cause = "each opening has a copy of its arguments, so nobody else sees it; to copy takes time"
                found.append(Finding("note", what, "", cause, "Copy it inside the generator function"))
            break
    return found


def late(opening: Opening, seconds: float) -> Finding:
    """Tell that an item did not come in time."""
    what = f"item {len(opening.items)} did not come in {seconds:g} s, {opening.how}"
    cause = (
        opening.error.told() if opening.error else "it blocks; a thread of this process still waits for it"
    )
    remedy = "Find what it waits for; if it only takes long, give it longer (seconds=60, --seconds 60)"
    goes_on = bool(opening.items) and opening.error is not None  # with what came, for its worker was ended
    return Finding("warning" if goes_on else "error", what, "", cause, remedy)


def few(n: int, asked: int, seconds: float) -> Finding:
    """Tell that fewer items were compared than was asked for."""
    cause = f"no more came in {seconds:g} s, or items are large"
    return Finding(
        "note", f"{n} of {asked} items were compared", "", cause, "Give it longer: seconds=, --seconds"
    )


def raised(subject: Subject, opening: Opening) -> list[Finding]:
    """Tell what a stream raises, or that it is empty."""
    if opening.error is None:
        return [] if opening.items else [Finding("warning", "gives no items")]
    where = subject.where(opening, len(opening.items))
    remedy = "Catch it in the generator function, if the stream can go on without that item"
    if READ_ONLY in opening.error.text or "read-only" in opening.error.text:
        remedy = "Copy an array before changing it: x = x.copy()"
    return [Finding("error", "raises an exception", where, opening.error.told(), remedy)]


def ends(*openings: Opening) -> list[Finding]:
    """Tell if a stream ignores its end, or raises there; and of what else it warned."""
    found = {}
    for opening in openings:
        if opening.close_error is not None:
            remedy = "Let nothing raise in `finally` or after `except GeneratorExit`"
            found["close"] = Finding(
                "error", "raises when it is closed before its end", "", opening.close_error.told(), remedy
            )
        for warning in opening.warnings:
            text, place = str(warning.message), f"{warning.filename}:{warning.lineno}"
            if "ignores its end" in text:
                what, _, remedy = text.partition("Catch Exception instead")
                found[text] = Finding(
                    "error", "ignores its end", place, what.strip(), f"Catch Exception instead{remedy}"
                )
            elif len(found) < 2 * MAX_SHOWN:
                found[text] = Finding("note", f"warns: {warning.category.__name__}: {text}", place)
    return list(found.values())


def clean(first: set[Left], *others: set[Left]) -> list[Finding]:
    """Tell what is left of openings after they were closed."""
    found = []
    for kind in sorted({one.kind for each in (first, *others) for one in each}):
        each = [sorted(one.text for one in left if one.kind == kind) for left in (first, *others)]
        what = f"{kind}: {_some([text for texts in each for text in texts])}"
        is_ours = kind not in ("shared memory", "temporary file")
        if all(each) if not is_ours else any(each[1:]):
            remedy = (
                "End it in a `finally` of the generator function, or use a `with` block around its yields"
            )
            level: Level = "error" if is_ours else "warning"
            found.append(Finding(level, f"leaves something behind when it is closed: {what}", remedy=remedy))
        elif is_ours:
            cause = "it may be kept for later openings, by the stream or by a library"
            found.append(Finding("note", f"the first opening left something: {what}", cause=cause))
    return found


def _some(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
