"""Muxes: streams that mix streams.

base.py         BaseMux: how a mux opens streams, and how to write a mux of one's own
weighted.py     a mux whose streamers have weights
stochastic.py   StochasticMux: a bounded working set that is replaced all the time
activations.py  which stream it opens next, and for how many samples
orders.py       random orders of slots, which it begins with or goes through
shuffled.py     ShuffledMux: all streams at once
round_robin.py  RoundRobinMux: one item of each in turn
chain.py        ChainMux: one stream after the other
legacy.py       Mux, the name from before version 2
"""

from .base import BaseMux
from .chain import ChainMux
from .legacy import Mux
from .round_robin import RoundRobinMux
from .shuffled import ShuffledMux
from .stochastic import StochasticMux

__all__ = ["BaseMux", "ChainMux", "Mux", "RoundRobinMux", "ShuffledMux", "StochasticMux"]
