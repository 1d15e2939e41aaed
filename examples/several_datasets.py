"""
Several data sets in one stream
===============================

Splits scikit-learn's digits into three NPZ archives, and mixes samples from them: from all three streams at
a time, or from one at a time. First uses pescador.Mux, the name from before version 2, which warns that it
is deprecated. Then uses StochasticMux. Shows where the samples come from.
"""

import os
import tempfile
import warnings
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import pescador


def split_and_save_datasets(X, Y, paths):
    """Shuffle the samples, and save an equal part of them to each path."""
    shuffled_idxs = np.random.permutation(np.arange(len(X)))
    for i in range(len(paths)):
        X_i = X[shuffled_idxs[i :: len(paths)]]
        Y_i = Y[shuffled_idxs[i :: len(paths)]]
        np.savez(paths[i], X=X_i, Y=Y_i)


def npz_generator(npz_path):
    """Yield random samples of an archive, forever."""
    with np.load(npz_path) as npz_data:
        X = npz_data["X"]
        y = npz_data["Y"]
    n = X.shape[0]
    source = np.asarray(os.path.basename(npz_path))

    while True:
        i = np.random.randint(0, n)
        yield {"X": X[i], "Y": y[i], "source": source}


def show(title, mux):
    """Print where 6000 samples come from, and how many in a row come from the same place."""
    sources = [str(data["source"]) for data in mux(max_iter=6000)]
    runs = [len(list(run)) for _, run in groupby(sources)]
    counts = {source: sources.count(source) for source in sorted(set(sources))}
    print(f"{title}: {counts}, {np.mean(runs):.1f} in a row on average")
    return sources


np.random.seed(0)
X_train, Y_train = load_digits(return_X_y=True)
with tempfile.TemporaryDirectory() as folder:
    datasets = [os.path.join(folder, f"dataset{i}_train.npz") for i in (1, 2, 3)]
    split_and_save_datasets(X_train, Y_train, datasets)
    streams = [pescador.Streamer(npz_generator, x) for x in datasets]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        # Three active streams, one of each data set. With rate=None they are never replaced.
        mux = pescador.Mux(streams, k=len(streams), rate=None)
        show("Mux, three at a time", mux)

        # One active stream, which gives 1000 samples on average before the next one is opened
        mux = pescador.Mux(streams, k=1, rate=1000)
        show("Mux, one at a time", mux)
    print(f"{caught[0].category.__name__}, {len(caught)} times: {caught[0].message}")

    # The same, with today's class
    mux = pescador.StochasticMux(streams, n_active=len(streams), rate=None)
    one_of_each = show("StochasticMux, one of each", mux)
    mux = pescador.StochasticMux(streams, n_active=1, rate=1000)
    one_at_a_time = show("StochasticMux, one at a time", mux)

    for data in mux(max_iter=2):
        print({k: v.shape for k, v in data.items()})

figure, (above, below) = plt.subplots(2, figsize=(9, 4), sharey=True, layout="constrained")
above.plot(one_of_each[:200], ".")
above.set_title("one stream of each data set")
below.plot(one_at_a_time, "|")
below.set(title="one at a time, each for 1000 samples on average", xlabel="number of the sample")
plt.show()
