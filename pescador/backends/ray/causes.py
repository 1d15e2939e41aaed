"""What Ray's exceptions say became of a worker, in words for users."""

from __future__ import annotations

import re

from ray import exceptions

__all__ = ["cause_of", "why_not_started"]

MAX_DETAIL = 600  # characters of what Ray says

STORE = (
    "Give Ray's object store more memory (object_store_memory), use fewer workers a node, or make items "
    "smaller"
)


def cause_of(error: BaseException) -> str:
    """Return what became of a worker, as the end of a sentence, and the remedy."""
    if isinstance(error, exceptions.ActorUnavailableError):
        return (
            f"cannot be reached; whether it still runs is unknown: {_detail(error)}. Is the network between "
            "the "
            "nodes up, and is the node overloaded?"
        )
    if isinstance(error, exceptions.NodeDiedError) or "node" in _reason(error):
        return f"is gone with its node, which died, was removed, or was cut off: {_detail(error)}"
    if isinstance(error, exceptions.OutOfMemoryError):
        return (
            f"was ended by Ray because its node ran out of memory: {_detail(error)}. Use fewer workers a node"
        )
    if isinstance(error, exceptions.ActorDiedError):
        return (
            f"has ended: {_detail(error)}. Was it killed, perhaps because its node ran out of memory, or did "
            "its code crash?"
        )
    if isinstance(error, exceptions.ObjectStoreFullError | exceptions.OutOfDiskError):
        return (
            f"is not used any more, for an item did not fit into the object store: {_detail(error)}. {STORE}"
        )
    if isinstance(error, exceptions.ObjectLostError):  # also if its owner died, or it could not be fetched
        return f"is not used any more, for an item was lost on the way: {_detail(error)}"
    return f"is not used any more: {type(error).__name__}: {_detail(error)}"


def why_not_started(error: BaseException) -> str:
    """Return why a worker could not start, and the remedy."""
    text = str(error)
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        return f"its runtime_env cannot be set up: {_detail(error)}"
    missing = re.search(r"No module named '([^']+)'", text)
    if missing or "ModuleNotFoundError" in text or "ImportError" in text:
        name = missing[1] if missing else "a module"
        return (
            f"{name!r} cannot be imported on its node. Install the same there as here, or have Ray do it: "
            "runtime_env={'pip': ['pescador[ray]', ...]} or runtime_env={'py_modules': [...]}"
        )
    return cause_of(error)


def _reason(error: BaseException) -> str:
    """Return what Ray says of the death of an actor, if it says that."""
    found = re.search(r"The actor (?:is dead|died) because (.*)", str(error), flags=re.DOTALL)
    reason = found[1] if found else ""
    return reason if reason.startswith(("its node", "the node", "node")) else ""


def _detail(error: BaseException) -> str:
    """Return what Ray says, in one line."""
    text = " ".join(str(error).split())
    found = re.search(r"The actor is dead because (.*)", text)
    text = found[1] if found else text
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}..."
