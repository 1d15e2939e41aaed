"""
Streamer basics
===============

An endless stream of noisy samples from the Iris data.

Shows that a Streamer holds a generator function and its arguments. So the stream can be opened any number
of times, and limited to any number of samples. Draws some of them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import pescador


def noisy_samples(X, Y, sigma=1.0):
    """Yield random samples with additive Gaussian noise, forever.

    X has shape (n, d), and Y has shape (n,). In a sample, 'X' has shape (1, d), and 'Y' is a scalar.
    """
    n, d = X.shape

    while True:
        i = np.random.randint(0, n)
        noise = sigma * np.random.randn(1, d)
        yield dict(X=X[i] + noise, Y=Y[i])


np.random.seed(0)
X, Y = load_iris(return_X_y=True)
train, test = train_test_split(np.arange(len(X)), test_size=0.1)

# The recipe of the stream. Nothing runs yet, and the Streamer copies neither array.
streamer = pescador.Streamer(noisy_samples, X[train], Y[train])
print("a recipe:", streamer)

# Three ways to open it. Each opening is a stream of its own.
print("\nstreamer.iterate(max_iter=3)")
for sample in streamer.iterate(max_iter=3):
    print("  X", sample["X"].round(2), "Y", sample["Y"])

print("streamer(max_iter=3)")
for sample in streamer(max_iter=3):
    print("  X", sample["X"].round(2), "Y", sample["Y"])

print("for sample in streamer")
for n_samples, sample in enumerate(streamer, 1):
    print("  X", sample["X"].round(2), "Y", sample["Y"])
    if n_samples == 3:
        break

# Any iterable is a stream, too; cycle() starts it again whenever it ends.
letters = pescador.Streamer("abc")
print("\na stream of letters:", "".join(letters), "and cycled:", "".join(letters.cycle(max_iter=8)))

labels = [int(sample["Y"]) for sample in streamer(max_iter=6000)]
print("\nclasses among 6000 samples:", np.bincount(labels), "in the data:", np.bincount(Y[train]))

samples = list(streamer(max_iter=300))
points = np.concatenate([sample["X"] for sample in samples])
plt.scatter(points[:, 2], points[:, 3], s=12, c=[sample["Y"] for sample in samples])
plt.scatter(X[train][:, 2], X[train][:, 3], s=30, c=Y[train], edgecolors="black")
plt.xlabel("petal length, cm")
plt.ylabel("petal width, cm")
plt.title("300 samples, and (with a black edge) the data")
plt.show()
