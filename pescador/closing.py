"""How a stream is closed, also one that does not want to end.

A generator is closed by a GeneratorExit that is raised where it waits. One that catches it and yields again
(``except:`` around a ``yield``) ignores its end. Python then raises RuntimeError in whoever closes it, and
prints another one when the generator is collected. Neither is of use to the consumer, who did nothing wrong:
the author of the generator gets one warning, and the stream counts as closed.
"""

from __future__ import annotations

import sys
import threading
import warnings
from types import GeneratorType
from typing import Any

__all__ = ["close"]

_IGNORED = "generator ignored GeneratorExit"  # what Python says, in every version

_changing_hook = threading.RLock()

# The list of warning filters, and the functions that were warned of under it: file, line and name. When that
# list is replaced, everything is warned of anew, as Python does with its own warnings.
_warned: tuple[object, set[tuple[str, int, str]]] = (None, set())


def close(held: list[Any]) -> None:
    """Close the iterator in a list, which is to hold the only reference to it, and empty the list.

    Raises what the iterator raises at its end. A generator that ignores its end is dropped where it stands,
    with a RuntimeWarning, once for a function.
    """
    if not hasattr(held[0], "close"):
        held.clear()
        return
    # A generator that delegates (``yield from``) to one that ignores its end passes on the RuntimeError of
    # that one, and drops it. It is held here, or Python would print another error before we have warned.
    while isinstance(getattr(held[-1], "gi_yieldfrom", None), GeneratorType):
        held.append(held[-1].gi_yieldfrom)
    try:
        held[0].close()
        return
    except RuntimeError as error:
        if str(error) != _IGNORED:
            raise
        error.__traceback__ = None  # it holds the frames of the generators
    culprits = [
        (generator.gi_code.co_filename, generator.gi_code.co_firstlineno, generator.__qualname__)
        for generator in held
        if isinstance(generator, GeneratorType) and generator.gi_frame is not None
    ]
    if not culprits:  # some other iterator, which closes a generator itself
        kind = type(held[0])
        culprits = [(kind.__module__, 1, kind.__qualname__)]
    _drop(held)
    for culprit in culprits:
        _warn(*culprit)


def _drop(generators: list[Any]) -> None:
    """Drop the last references to generators, and keep silent what Python would print then."""
    with _changing_hook:
        hook = sys.unraisablehook

        def quiet(unraisable: sys.UnraisableHookArgs) -> None:
            if str(unraisable.exc_value) != _IGNORED:
                hook(unraisable)

        sys.unraisablehook = quiet
        try:
            generators.clear()
        finally:
            sys.unraisablehook = hook


def _warn(filename: str, line: int, name: str) -> None:
    global _warned
    if _warned[0] is not warnings.filters:
        _warned = warnings.filters, set()
    if (filename, line, name) in _warned[1]:
        return
    _warned[1].add((filename, line, name))
    warnings.warn_explicit(
        f"the generator {name} ignores its end: when its stream is closed, GeneratorExit is raised "
        "at its yield, and it catches that (does it have `except:` or `except BaseException:`?) and yields "
        "again. Catch Exception instead, so that it ends and frees what it holds",
        RuntimeWarning,
        filename,
        line,
    )
