"""
scikit-learn
============

Call partial_fit over a mux of files, to an accuracy of at least 0.9.

Writes 12 pairs of NPY files to a temporary folder. The sizes of the features differ a lot, as those of
measurements do. So a scaler learns their means and variances from the stream first; then scaling is a part of
the stream, and a linear classifier learns from it. No more than a batch is in memory at a time.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import pescador

N_FILES, N_BATCHES = 12, 500


def scaled(batches, scaler):
    """Yield batches with scaled features."""
    for batch in batches:
        yield {**batch, "X": scaler.transform(batch["X"])}


def train(batches, desc):
    """Return a classifier that has learned from batches."""
    classifier = SGDClassifier("log_loss", alpha=0.001, random_state=0)
    for batch in tqdm(batches(max_iter=N_BATCHES), total=N_BATCHES, desc=desc):
        classifier.partial_fit(batch["X"], batch["Y"], classes=(0, 1))
    return classifier


rng = np.random.default_rng(0)
X, Y = make_classification(
    20_000, 30, n_informative=15, n_clusters_per_class=1, class_sep=1.5, random_state=0
)
X *= 10 ** rng.uniform(-3, 3, size=30)
X_test, Y_test = X[18_000:], Y[18_000:]

with tempfile.TemporaryDirectory() as folder:
    files = []
    for i, part in enumerate(np.array_split(np.arange(18_000), N_FILES)):
        files.append({key: Path(folder) / f"{key}{i:02d}.npy" for key in ("X", "Y")})
        np.save(files[-1]["X"], X[part])
        np.save(files[-1]["Y"], Y[part])

    # Random rows of a file, of which only these rows are read.
    streams = [pescador.Streamer(pescador.rows, file, rng=pescador.RNG) for file in files]
    # 4 files at a time; each is replaced after 200 rows on average.
    mux = pescador.StochasticMux(streams, n_active=4, rate=200, random_state=0)
    batches = pescador.Streamer(pescador.buffer_stream, mux, 64)

    scaler = StandardScaler()
    for batch in batches(max_iter=100):
        scaler.partial_fit(batch["X"])
    scaled_batches = pescador.Streamer(scaled, batches, scaler)

    without = train(batches, "not scaled").score(X_test, Y_test)
    accuracy = train(scaled_batches, "scaled").score(scaler.transform(X_test), Y_test)

print(f"accuracy on held-out rows: {without:.3f} without the scaler, {accuracy:.3f} with it")
assert accuracy >= 0.9

plt.figure(figsize=(8, 3), layout="constrained")
plt.bar(range(30), scaler.scale_, log=True)
plt.xlabel("feature")
plt.ylabel("size (standard deviation)")
plt.title("what the scaler has learned from the stream")
plt.show()
