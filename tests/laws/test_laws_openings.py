"""Laws 2 and 6, for muxes seeded by a Generator or RandomState: each opening goes on in its sequence.

Wherever the mux stands in its tree, wherever it runs, and whatever became of the workers in between.
PESCADOR_LAW_EXAMPLES sets the number of trees for each backend and number of workers.
"""

import copy
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pescador import RNG, ChainMux, ParallelStreamer, RoundRobinMux, ShuffledMux, StochasticMux, Streamer

from ..streams import noise
from .test_laws_serial import epochs

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))
N = 40  # items looked at; some trees are endless

sources = st.builds(
    lambda make, seed: make(seed),
    st.sampled_from([np.random.default_rng, np.random.RandomState]),
    st.integers(0, 1),
)
states = st.one_of(sources, sources, st.none(), st.integers(0, 3))


def muxes(children):
    streams = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        st.builds(ChainMux, streams, random_state=states),
        st.builds(ShuffledMux, streams, random_state=states),
        st.builds(lambda s, r: RoundRobinMux(s, "permuted_cycle", r), streams, states),
        st.builds(lambda s, r: StochasticMux(s, 1, 2, mode="exhaustive", random_state=r), streams, states),
    )


leaves = st.builds(lambda n: Streamer(noise, n, rng=RNG), st.integers(1, 4))
trees = st.recursive(
    muxes(leaves),
    lambda children: st.one_of(
        muxes(children | leaves),
        st.builds(Streamer, children),
        st.builds(lambda stream: Streamer(epochs, [stream], 2), children),
        st.builds(lambda stream: ParallelStreamer(stream, "serial"), children),
    ),
    max_leaves=6,
)
roots = st.one_of(
    st.builds(lambda tree: ChainMux([tree], random_state=0), trees),
    st.builds(lambda tree, source: ShuffledMux([tree], random_state=source), trees, sources),
)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("backend", ["serial", "thread", "shm", "zmq"])
def test_successive_openings_are_those_without_workers(backend, n):
    @settings(max_examples=EXAMPLES or (60 if backend in ("serial", "thread") else 8))
    @given(roots, st.lists(st.sampled_from(["iterate", "cycle", "close"]), min_size=2, max_size=5))
    def same(tree, steps):
        twin = copy.deepcopy(tree)
        with ParallelStreamer(tree, backend, n) as parallel:
            for step in steps:
                if step == "close":
                    parallel.close()
                else:
                    assert list(getattr(parallel, step)(N)) == list(getattr(twin, step)(N))

    same()
