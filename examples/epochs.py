"""
Epochs
======

Every sample once, in a random order, then again in another order.

Writes scikit-learn's digits to 120 NPZ archives in a temporary directory. A StochasticMux in mode
'exhaustive' opens each archive once. Cycling this mux makes epochs. Shows that each epoch has every sample
exactly once, and that no two epochs have the same order. Draws the order of two epochs.
"""

import tempfile
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import pescador


def data_gen(filename, m):
    """Yield the first `m` samples of an archive."""
    with np.load(filename) as data:
        X = data["X"]
        Y = data["Y"]
        index = data["index"]

    for i in range(m):
        yield dict(X=X[i], y=Y[i], index=index[i])


N = 120
M = 10
digits_X, digits_Y = load_digits(return_X_y=True)

with tempfile.TemporaryDirectory() as folder:
    files = [Path(folder) / f"file{i:03d}.npz" for i in range(N)]
    for i, fn in enumerate(files):
        rows = np.arange(i * M, (i + 1) * M)
        np.savez(fn, X=digits_X[rows], Y=digits_Y[rows], index=rows)

    streams = [pescador.Streamer(data_gen, fn, M) for fn in files]

    k = 100  # how many streams are active at a time, at most
    # With rate=None each stream runs until it ends by itself, here after M samples.
    mux = pescador.StochasticMux(streams, k, rate=None, mode="exhaustive", random_state=0)

    epoch_stream = mux(cycle=True)
    orders = []
    for epoch in range(3):
        order = [int(sample["index"]) for sample in islice(epoch_stream, N * M)]
        complete = sorted(order) == list(range(N * M))
        print(f"epoch {epoch}: {len(order)} samples, each exactly once: {complete}; it begins {order[:8]}")
        orders.append(order)
    epoch_stream.close()

print("orders that differ:", len({tuple(order) for order in orders}))

# The samples of an archive, ten in a row in the data, come while its stream is open.
figure, all_axes = plt.subplots(1, 2, sharey=True, figsize=(9, 4), layout="constrained")
for epoch, axes in enumerate(all_axes):
    axes.plot(orders[epoch], ".", markersize=2)
    axes.set(title=f"epoch {epoch}", xlabel="position in the epoch")
all_axes[0].set_ylabel("number of the sample")
plt.show()
