"""
Sampling from NPZ archives
==========================

Writes scikit-learn's digits to 40 archives in a temporary directory, and trains a classifier on runs of 16
rows from random archives, 32 of which are open at a time, to an accuracy of at least 0.8. Shows why it can be
better to copy: a batch that is a view keeps the whole array in memory, but a copy does not.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import pescador


def sample_npz(npz_file, n):
    """Yield random runs of `n` rows of an archive, forever."""
    with np.load(npz_file) as data:
        n_total = len(data["X"])

        while True:
            idx = np.random.randint(n_total - n)
            yield dict(X=data["X"][idx : idx + n], Y=data["Y"][idx : idx + n])


def sample_npz_copy(npz_file, n):
    """Do the same with copies, so that the memory of the rest of the archive can be freed."""
    with np.load(npz_file) as data:
        n_total = len(data["X"])

        while True:
            idx = np.random.randint(n_total - n)
            yield dict(X=data["X"][idx : idx + n].copy(), Y=data["Y"][idx : idx + n].copy())


def kept_alive(array):
    """Return the number of bytes that `array` keeps in memory."""
    return array.nbytes if array.base is None else array.base.nbytes


np.random.seed(0)
X, Y = load_digits(return_X_y=True)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, test_size=0.1)

with tempfile.TemporaryDirectory() as folder:
    npz_files = [Path(folder) / f"digits{i:02d}.npz" for i in range(40)]
    parts = zip(np.array_split(X_train, 40), np.array_split(Y_train, 40), strict=True)
    for npz_f, (X_part, Y_part) in zip(npz_files, parts, strict=True):
        np.savez(npz_f, X=X_part, Y=Y_part)

    n = 16
    for sampler in (sample_npz, sample_npz_copy):
        streams = [pescador.Streamer(sampler, npz_f, n) for npz_f in npz_files]

        # Keep 32 streams active at a time, and draw 16 batches on average from each before replacing it
        mux_stream = pescador.StochasticMux(streams, n_active=32, rate=16)

        estimator = SGDClassifier()
        for batch in mux_stream(max_iter=1000):
            estimator.partial_fit(batch["X"], batch["Y"], classes=np.arange(10))

        accuracy = estimator.score(X_test, Y_test)
        assert accuracy >= 0.8
        print(
            f"{sampler.__name__:15}: test accuracy {accuracy:.3f}; a batch of "
            f"{batch['X'].nbytes} bytes keeps {kept_alive(batch['X'])} in memory"
        )
