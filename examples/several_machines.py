"""
Several machines
================

Training data that the workers of several machines make, with Ray.

Here the machines are two nodes of a cluster on this one. With a cluster of your own, leave the part between
the lines out, and give its address: ParallelStreamer(..., backend="ray", address="auto").
"""

import os
import secrets
import sys

import numpy as np

import pescador

try:
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # nobody else may use the cluster,
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # and no token is written to a file
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    print('This example needs Ray: pip install "pescador[ray]"')
    sys.exit()

SLOPE = np.arange(1.0, 5.0)


def measurements(noise, rng):
    """One source of data: yields samples without an end, and says which node made them."""
    node = ray.get_runtime_context().get_node_id()[:8]
    while True:
        x = rng.normal(size=4)
        yield {"x": x, "y": np.array(x @ SLOPE + rng.normal(0, noise)), "node": np.array(node)}


def batches(noise, rng):
    return pescador.buffer_stream(pescador.Streamer(measurements, noise, rng), 64)


# --- a cluster of two nodes
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
for _ in range(2):
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
# ---

sources = [pescador.Streamer(batches, noise, rng=pescador.RNG) for noise in (0.01, 0.1, 0.5, 1.0)]
mux = pescador.StochasticMux(sources, n_active=4, rate=None, random_state=0)

weights = np.zeros(4)
made_by: dict[str, int] = {}
with pescador.ParallelStreamer(mux, backend="ray", n_workers=2) as stream:
    for step, batch in enumerate(stream.iterate(200)):
        node = str(batch["node"][0])
        made_by[node] = made_by.get(node, 0) + 1
        error = batch["x"] @ weights - batch["y"]
        weights -= 0.05 * batch["x"].T @ error / len(error)
        if step % 50 == 0:
            print(f"step {step:3}: mean squared error {np.mean(error**2):7.3f}, made by node {node}")

for node, n_batches in sorted(made_by.items()):
    print(f"node {node} made {n_batches} batches")
print("weights", weights.round(1))
assert np.allclose(weights, SLOPE, atol=0.2)
assert len(made_by) == 2, "the workers are spread over both nodes"

ray.shutdown()
cluster.shutdown()
