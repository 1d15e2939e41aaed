"""
Train from disk, with each backend
==================================

Train a classifier on data that is streamed from files on disk, with each backend in turn.

Writes scikit-learn's digits to 60 NPZ archives in a temporary directory. A background worker samples from
16 of them at a time, adds noise to every image, and makes batches. Prints the accuracy on held-out samples
and the speed for each backend. The accuracy is at least 0.9, and the same for all of them, because one
random_state governs the whole stream. The speed differs.
"""

import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import pescador

BACKENDS = ("serial", "thread", "zmq", "shm")
N_ARCHIVES = 60
BATCH_SIZE = 64
N_BATCHES = 400


def write_archives(folder, X, Y):
    """Write the samples to archives, and return their paths."""
    paths = []
    for i, rows in enumerate(np.array_split(np.arange(len(X)), N_ARCHIVES)):
        paths.append(Path(folder) / f"digits{i:02d}.npz")
        np.savez_compressed(paths[-1], X=X[rows], Y=Y[rows])
    return paths


def sample_npz(npz_file, rng):
    """Yield random images of one archive with additive Gaussian noise, forever."""
    with np.load(npz_file) as data:
        X, Y = data["X"], data["Y"]
    while True:
        i = rng.integers(len(X))
        yield dict(X=X[i] / 16 + 0.1 * rng.standard_normal(X.shape[1]), Y=Y[i])


def train(batches, desc):
    """Train on batches. Return the estimator, and the seconds to the first batch and for the rest."""
    estimator = MLPClassifier(hidden_layer_sizes=(128,), learning_rate_init=0.005, random_state=0)
    # The batches are small, so more threads for linear algebra would only take the core of the worker.
    with threadpool_limits(1), tqdm(total=N_BATCHES * BATCH_SIZE, unit="samples", desc=desc) as progress:
        start = time.perf_counter()
        for n_batches, batch in enumerate(batches(max_iter=N_BATCHES)):
            if n_batches == 0:
                first = time.perf_counter()
            estimator.partial_fit(batch["X"], batch["Y"], classes=np.arange(10))
            progress.update(len(batch["X"]))
    return estimator, first - start, time.perf_counter() - first


X, Y = load_digits(return_X_y=True)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, test_size=0.2, random_state=0)

with tempfile.TemporaryDirectory() as folder:
    npz_files = write_archives(folder, X_train, Y_train)

    # When a stream opens, pescador replaces RNG with a random generator for this stream.
    streams = [pescador.Streamer(sample_npz, npz_f, rng=pescador.RNG) for npz_f in npz_files]

    # Sample from 16 archives at a time, and replace each after 32 samples on average
    mux = pescador.StochasticMux(streams, n_active=16, rate=32, random_state=0)

    # Batches are part of the recipe, so they are made where the stream runs.
    batches = pescador.Streamer(pescador.buffer_stream, mux, BATCH_SIZE)

    rows = []
    for backend in BACKENDS:
        with pescador.ParallelStreamer(batches, backend=backend) as stream:
            estimator, first, seconds = train(stream, f"{backend:7}")
        accuracy = estimator.score(X_test / 16, Y_test)
        rows.append((backend, accuracy, (N_BATCHES - 1) * BATCH_SIZE / seconds, first))

print(f"\n{'backend':8} {'accuracy':>8} {'samples/s':>10} {'first batch':>12}")
for backend, accuracy, speed, first in rows:
    print(f"{backend:8} {accuracy:8.3f} {speed:10,.0f} {first:10.2f} s")

assert accuracy >= 0.9
assert all(row[1] == accuracy for row in rows)

plt.plot(estimator.loss_curve_)
plt.xlabel("number of the batch")
plt.ylabel("loss of the batch, with each backend")
plt.show()
