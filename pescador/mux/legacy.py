"""Mux, the name from before version 2."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TypeVar

import numpy.typing as npt

from ..seeding import RandomState
from .base import Member
from .stochastic import StochasticMux

__all__ = ["Mux"]

T_co = TypeVar("T_co", covariant=True)


class Mux(StochasticMux[T_co]):
    """Stochastic mux, under the name and with the parameters it had before version 2.

    .. deprecated:: 2.0
       Use :class:`StochasticMux`.

    Parameters
    ----------
    streamers, rate, weights, prune_empty_streams, random_state
        As for StochasticMux.
    k : int
        Number of active streams, the `n_active` of StochasticMux.
    with_replacement : bool
        True is StochasticMux's mode 'with_replacement'.
    revive : bool
        Without replacement, whether a stream may be opened again later (mode 'single_active') or not
        (mode 'exhaustive').
    """

    def __init__(
        self,
        streamers: Iterable[Member[T_co]],
        k: int,
        rate: float | None = 256.0,
        weights: npt.ArrayLike | None = None,
        with_replacement: bool = True,
        prune_empty_streams: bool = True,
        revive: bool = False,
        random_state: RandomState = None,
    ) -> None:
        warnings.warn(
            "pescador.Mux is deprecated since version 2.0; use pescador.StochasticMux",
            DeprecationWarning,
            stacklevel=2,
        )
        mode = "with_replacement" if with_replacement else "single_active" if revive else "exhaustive"
        super().__init__(
            streamers,
            n_active=k,
            rate=rate,
            weights=weights,
            mode=mode,
            prune_empty_streams=prune_empty_streams,
            random_state=random_state,
        )
