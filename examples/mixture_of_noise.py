"""
A mixture of noise scales
=========================

One classifier learns from five streams, three of which are active at a time.

Each stream adds noise to the same data, on a scale of its own. A StochasticMux draws from three streams at
a time, and replaces a stream after 64 samples on average. Shows how the noise scales were mixed, and the
accuracy on samples that were held out, which is at least 0.9.
"""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import StandardScaler

from pescador import StochasticMux, Streamer


def noisy_samples(X, Y, sigma=1.0):
    """Yield random samples with additive Gaussian noise, forever."""
    n, d = X.shape

    while True:
        i = np.random.randint(0, n, size=1)
        noise = sigma * np.random.randn(1, d)
        yield dict(X=X[i] + noise, Y=Y[i], sigma=sigma)


np.random.seed(0)
raw_data = load_breast_cancer()
# Scale the features to unit variance, so that sigma means the same for each of them.
X, Y = StandardScaler().fit_transform(raw_data["data"]), raw_data["target"]
classes = np.unique(Y)

rs = ShuffleSplit(n_splits=1, test_size=0.1)
for train, test in rs.split(X):
    estimator = SGDClassifier()

    # One stream for each noise scale
    streams = [Streamer(noisy_samples, X[train], Y[train], sigma=sigma) for sigma in [0, 0.5, 1.0, 2.0, 4.0]]

    # Three of them are active at a time, each for 64 samples on average
    mux_stream = StochasticMux(streams, 3, rate=64)

    drawn = []
    for sample in mux_stream(max_iter=5000):
        estimator.partial_fit(sample["X"], sample["Y"], classes=classes)
        drawn.append(sample["sigma"])

    for sigma, n in sorted(Counter(drawn).items()):
        print(f"sigma {sigma:3.1f}: {n:4d} samples")

    Ypred = estimator.predict(X[test])
    accuracy = accuracy_score(Y[test], Ypred)
    print(f"Test accuracy: {accuracy:.3f}")
    assert accuracy >= 0.9

    # Three scales are active at a time.
    plt.figure(figsize=(9, 3), layout="constrained")
    plt.plot(drawn[:800], "|")
    plt.xlabel("number of the sample")
    plt.ylabel("sigma")
    plt.show()
