"""
Repeatable validation
=====================

The same held-out samples in the same order, as often as needed.

A ChainMux in mode 'cycle' runs through the validation files again and again. After each round of training,
the next N * M samples are the whole validation set, so the scores of the rounds can be compared. Prints the
score after each round, which is at least 0.8 in the end, and whether every round saw the same samples.
"""

import os
import tempfile
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import pescador


def data_gen(filename, m):
    """Yield the first `m` samples of an archive."""
    with np.load(filename) as data:
        X = data["X"]
        Y = data["Y"]

    for i in range(m):
        yield dict(X=X[i], y=Y[i])


def sampler(X, Y, rng):
    """Yield random samples, forever."""
    while True:
        i = rng.integers(len(X))
        yield dict(X=X[i], y=Y[i])


X, Y = load_digits(return_X_y=True)
X_train, X_val, Y_train, Y_val = train_test_split(X, Y, test_size=0.2, random_state=0)

with tempfile.TemporaryDirectory() as folder:
    val_files = [os.path.join(folder, "file1.npz"), os.path.join(folder, "file2.npz")]
    N = len(val_files)
    M = 150
    for i, fn in enumerate(val_files):
        np.savez(fn, X=X_val[i::N], Y=Y_val[i::N])

    val_streams = [pescador.Streamer(data_gen, fn, M) for fn in val_files]
    val_stream = pescador.ChainMux(val_streams, mode="cycle")

    train_mux = pescador.ShuffledMux(
        [pescador.Streamer(sampler, X_train, Y_train, rng=pescador.RNG)], random_state=0
    )
    train_batches = pescador.buffer_stream(train_mux, 32)
    val_samples = iter(val_stream)

    estimator = SGDClassifier(random_state=0)
    seen, scores = [], []
    for training_round in range(4):
        for batch in islice(train_batches, 5):
            estimator.partial_fit(batch["X"], batch["y"], classes=np.arange(10))
        val_set = next(pescador.buffer_stream(val_samples, N * M))
        score = estimator.score(val_set["X"], val_set["y"])
        print(f"round {training_round}: validation accuracy {score:.3f} on {len(val_set['X'])} samples")
        seen.append(val_set["X"])
        scores.append(score)
    val_samples.close()

print("same samples in every round:", all(np.array_equal(seen[0], X) for X in seen))
assert score >= 0.8

plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(scores, "o-")
plt.xticks(range(len(scores)))
plt.xlabel("round of training")
plt.ylabel("accuracy on the same samples")
plt.show()
