"""Sample and stream data for machine learning.

core.py         Streamer, the recipe of a stream; streamable
iteration.py    one iteration over it
place.py        where that stands
epochs.py       Epochs: each iter() is the next epoch
checkpoint.py   states: saving them, and going on from them
origin.py       where an item came from; replay
fingerprint.py  of which stream a state is
arguments.py    how its generator function is called, with arguments of each opening's own
isolation.py    which of them are passed on, shared, viewed or copied
opening.py      what a stream is opened with: its seed, and who opens streams below it
closing.py      how a stream is closed, also one that does not want to end
mux/            muxes, which mix streams
maps.py         buffer_stream, tuples, keras_tuples, cache
sources.py      rows, patches: random parts of arrays and files; skip_errors, for files that fail
sharding.py     shard, the part of a stream for one of several training processes
files.py        the arrays and files that these read
adaptors/       torch, keras: datasets of these frameworks; never imported by pescador itself
parallel.py     ParallelStreamer and ZMQStreamer, which run a stream in the background
pools.py        the pool of workers of each
zmq_stream.py   ZMQStreamer, where earlier versions had it
backends/       what they run on: serial, thread, shm, zmq
seeding.py      how one random_state governs a whole tree of streams; RNG
sampling.py     random numbers in blocks, and weighted draws
memory.py       empty, for arrays that a worker delivers without a copy
commands/       python -m pescador: bench, check, doctor, clean
testing/        conformance tests for backends
exceptions.py   the errors
checks.py       checks of parameters
describe.py     what items and arguments look like in messages
interrupts.py   Ctrl-C at a moment when it would leave something half done
"""

from typing import TYPE_CHECKING

from .arguments import stateless
from .core import Streamer, streamable
from .epochs import Epochs
from .exceptions import DataError, PescadorError, WorkerError
from .maps import buffer_stream, cache, keras_tuples, tuples
from .memory import empty
from .mux import BaseMux, ChainMux, Mux, RoundRobinMux, ShuffledMux, StochasticMux
from .opening import START
from .origin import replay
from .parallel import ParallelStreamer, ZMQStreamer
from .seeding import RNG
from .sharding import shard
from .sources import patches, rows, skip_errors

if TYPE_CHECKING:
    from .commands.check import check
else:

    def __getattr__(name):
        """Import what few programs need, when it is asked for."""
        if name != "check":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .commands.check import check

        globals()[name] = check
        return check

    def __dir__():
        return sorted({*globals(), *__all__})


__version__ = "4.0.0.dev0"

__all__ = [
    "RNG",
    "START",
    "BaseMux",
    "ChainMux",
    "DataError",
    "Epochs",
    "Mux",
    "ParallelStreamer",
    "PescadorError",
    "RoundRobinMux",
    "ShuffledMux",
    "StochasticMux",
    "Streamer",
    "WorkerError",
    "ZMQStreamer",
    "buffer_stream",
    "cache",
    "check",
    "empty",
    "keras_tuples",
    "patches",
    "replay",
    "rows",
    "shard",
    "skip_errors",
    "stateless",
    "streamable",
    "tuples",
]
