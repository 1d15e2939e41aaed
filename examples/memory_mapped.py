"""
Sampling from memory-mapped NPY files
=====================================

Only the rows that are drawn are read.

Writes scikit-learn's digits to 40 pairs of NPY files in a temporary directory, and trains a classifier on
runs of 16 rows, to an accuracy of at least 0.8. The files are opened copy-on-write, so what a consumer writes
into a batch never reaches the files.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import pescador


def sample_npy_mmap(npy_x, npy_y, n):
    """Yield random runs of `n` rows of two files, forever."""
    X = np.load(npy_x, mmap_mode="c")
    Y = np.load(npy_y, mmap_mode="c")

    n_total = len(X)

    while True:
        idx = np.random.randint(n_total - n)
        yield dict(X=X[idx : idx + n], Y=Y[idx : idx + n])


np.random.seed(0)
X, Y = load_digits(return_X_y=True)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, test_size=0.1)

with tempfile.TemporaryDirectory() as folder:
    npy_x_files = [Path(folder) / f"x{i:02d}.npy" for i in range(40)]
    npy_y_files = [Path(folder) / f"y{i:02d}.npy" for i in range(40)]
    for npy_x, part in zip(npy_x_files, np.array_split(X_train, 40), strict=True):
        np.save(npy_x, part)
    for npy_y, part in zip(npy_y_files, np.array_split(Y_train, 40), strict=True):
        np.save(npy_y, part)

    n = 16
    streams = [
        pescador.Streamer(sample_npy_mmap, npy_x, npy_y, n)
        for (npy_x, npy_y) in zip(npy_x_files, npy_y_files, strict=True)
    ]
    mux_streamer = pescador.StochasticMux(streams, n_active=32, rate=16)

    estimator = SGDClassifier()
    for batch in mux_streamer(max_iter=1000):
        estimator.partial_fit(batch["X"], batch["Y"], classes=np.arange(10))
    accuracy = estimator.score(X_test, Y_test)
    print(f"Test accuracy: {accuracy:.3f}")

    print("a batch is a", type(batch["X"]).__name__, "of shape", batch["X"].shape)
    batch["X"][:] = -1  # stays in this process
    lowest = min(np.load(npy_x).min() for npy_x in npy_x_files)
    print("after writing -1 into it, the lowest value in the files is", lowest)
    del batch  # the last reference to a mapped file

assert accuracy >= 0.8
