"""WeightedMux: a mux whose streamers have weights."""

from __future__ import annotations

import copy
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..checkpoint import changed_weights
from ..fingerprint import Parts
from ..sampling import Draws, Floats, check_weights
from ..seeding import RandomState
from .base import BaseMux, Member

__all__ = ["WeightedMux"]

T_co = TypeVar("T_co", covariant=True)
Self = TypeVar("Self", bound="WeightedMux[Any]")


class _Weights:
    """The weights of a mux, shared with its activated copies.

    Attributes
    ----------
    original, values : array or None
        Those with which the mux was made, and those that it has now.
    settled : array or None
        `values`, unless those were assigned since: when the mux was made or unpickled, or a state was loaded.
    running : set
        The activated copies that follow a change.
    """

    def __init__(self, original: Floats | None, *changed: Floats | None) -> None:
        for values in (original, *changed):
            if values is not None:
                values.flags.writeable = False  # which a pickle does not keep
        self.original = self.values = original
        self.running: weakref.WeakSet[WeightedMux[Any]] = weakref.WeakSet()
        for values in changed:
            self.change(values)
        self.settled = self.values

    def change(self, values: Floats | None) -> None:
        """Use other weights from now on."""
        if same_weights(values, self.original):
            self.values = self.original
            changed_weights.discard(self)
        else:
            self.values = values
            changed_weights.add(self)

    def __reduce__(self) -> tuple[type[_Weights], tuple[Floats | None, ...]]:
        return _Weights, (self.original, self.values) if self in changed_weights else (self.original,)


class WeightedMux(BaseMux[T_co]):
    """A mux whose streamers have weights, which may be changed while it runs."""

    _draws: Draws  # of an activated copy
    _n_void: int  # how many of them gave no sample

    def __init__(
        self,
        streamers: Iterable[Member[T_co]],
        weights: npt.ArrayLike | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(streamers, random_state)
        self._weights = _Weights(None if weights is None else check_weights(weights, self.n_streams))

    @property
    def _n_samples(self) -> int:
        return self._draws.position - self._n_void

    @property
    def weights(self) -> Floats | None:
        """Weights of the streamers, shape (n_streams,), read-only; None if they are equal.

        Assign to change them, also while the mux runs in this process. Invalid weights raise
        PescadorError and change nothing.
        """
        return self._weights.values

    @weights.setter
    def weights(self, weights: npt.ArrayLike | None) -> None:
        weights = None if weights is None else check_weights(weights, self.n_streams)
        if same_weights(weights, self.weights):
            return
        self._weights.change(weights)
        for mux in list(self._weights.running):
            mux._weights = self._weights
            mux._reweigh()

    def __copy__(self: Self) -> Self:
        duplicate = super().__copy__()
        duplicate._weights = copy.deepcopy(self._weights)
        return duplicate

    def _activate(self) -> None:
        super()._activate()
        self._common = self._weights  # with the recipe
        if self.resumed is not None:
            weights = self.resumed.get("weights", self._weights.original)
            if isinstance(weights, list):
                weights = check_weights(weights, self.n_streams)
            if not same_weights(weights, self.weights):
                self._weights = _Weights(self._weights.original, weights)

    def _save_source(self) -> Any:
        state = super()._save_source()
        if state is not None and self._weights in changed_weights:
            state["weights"] = None if self.weights is None else self.weights.tolist()
        return state

    def _parameters(self) -> list[Any]:
        original = self._weights.original
        return [*super()._parameters(), None if original is None else zlib.crc32(original.tobytes())]

    def _parts(self) -> Parts:
        return super()._parts()._replace(weighted=self)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """While this block is open, a change of the weights calls :meth:`_reweigh`.

        Also one that was made since a state was loaded. But where the mux went on by other weights than the
        recipe had when its state was saved (it ran in a worker), it still does.
        """
        weights = self._common
        weights.running.add(self)
        try:
            if self._weights is not weights and weights.values is not weights.settled:
                self._weights = weights
                self._reweigh()
            yield
        finally:
            weights.running.discard(self)

    def _reweigh(self) -> None:
        raise NotImplementedError


def same_weights(one: Floats | None, other: Floats | None) -> bool:
    """Whether weights are the same."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
