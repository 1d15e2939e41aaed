"""Where one iteration over a stream stands: what is left of it when it is over."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from . import seeding
from .exceptions import PescadorError
from .opening import Context, Loaded, RepeatedContext, State
from .seeding import Seed

if TYPE_CHECKING:  # which imports this module
    from .core import Streamer

__all__ = ["CLOSED", "ENDED", "NEW", "OPEN", "RAISED", "Place"]

NEW, OPEN, CLOSED, ENDED, RAISED = "new", "open", "closed", "ended", "raised"


class Place:
    """Where an iteration stands.

    Attributes
    ----------
    status : str
        'new', 'open', 'closed' (broken off), 'ended' or 'raised'.
    epoch : int
        Number of the epoch of :meth:`Streamer.cycle`.
    before : int
        Items of the epochs before.
    state : dict or None
        What the next activated copy begins with.
    active : Streamer or None
        The activated copy.
    generator : weakref or None
        Refers to the generator out of which the items come, if it is one of :class:`Items`.
    seed : Seed or None
        That of the opening.
    number : int
        Of a stream among the arguments of another: how often it was opened before.
    """

    __slots__ = ("_left", "active", "before", "epoch", "generator", "number", "seed", "state", "status")

    def __init__(self, loaded: Loaded | None = None, epoch: int = 0) -> None:
        self.status = NEW
        self.epoch = epoch
        self.before = self.number = 0
        self.state: State | None = None
        self.seed: Seed | None = None
        self.active: Streamer[Any] | None = None
        self.generator: weakref.ref[Any] | None = None
        self._left: State | PescadorError | None = None
        if loaded is not None:
            self.seed, self.state = loaded.seed, loaded.state
            if self.state is None:
                self.status = ENDED
            else:
                self.epoch, self.before = self.state.get("epoch", 0), self.state.get("before", 0)

    def begin(self, stream: Streamer[Any]) -> Context:
        """Return what the iteration is opened with, but for the epoch."""
        context = Context(self.seed) if self.seed is not None else stream._next_context()
        if isinstance(context, RepeatedContext):
            self.number = context.number
        else:
            self.seed = context.seed()
        self.status = OPEN
        return context

    def begin_epoch(self, stream: Streamer[Any]) -> Context:
        """Return what one epoch is opened with."""
        context = self.begin(stream)
        if self.epoch:
            context = Context(context.seed().child(seeding.EPOCH, self.epoch), context.opener)
        return context

    def opened_with(self) -> Seed:
        """Return the seed of the activated copy."""
        context = None if self.active is None else self.active._context
        assert context is not None
        if isinstance(context, RepeatedContext):  # it is at its next opening already
            return context.seed_of(self.number)
        return context.seed()

    def leave(self) -> None:
        """Take note of where the iteration stands, which is closed now."""
        try:
            self._left = self._save_open()
        except Exception as error:
            error.__traceback__ = None  # it would keep the stream
            self._left = error if isinstance(error, PescadorError) else PescadorError(repr(error))
        self.status, self.active = CLOSED, None

    def fail(self) -> None:
        """Take note that the stream raised."""
        self.status, self.active = RAISED, None

    def end(self) -> None:
        """Take note that the stream ended."""
        self.status, self.active, self.state = ENDED, None, None

    def save(self) -> State | None:
        """Return where the iteration stands; None if it ended, or nothing of it was loaded or given.

        Raises
        ------
        PescadorError
            If that cannot be told.
        """
        if self.status == RAISED:
            raise PescadorError(
                "this stream has raised, or was interrupted while it made an item, so there is no place from "
                "which it could go on. Begin a new iteration, or go on from a state that was saved before"
            )
        if isinstance(self._left, PescadorError):
            raise self._left
        if self.status == CLOSED:
            return self._left
        if getattr(self.generator and self.generator(), "gi_running", False):
            raise PescadorError(
                "a state can be saved between two items only, but the stream is producing one now: was "
                "state_dict() called inside its generator, or on another thread than the one that iterates?"
            )
        return self._save_open()

    def _save_open(self) -> State | None:
        if self.active is None:
            return self.state
        state: State = self.active._save()
        if self.epoch:
            state = {"epoch": self.epoch, "before": self.before, **state}
        return state
