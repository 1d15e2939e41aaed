"""
Class balance
=============

A mux with a stream for each class, so that rare classes are learned as well as the others.

Keeps one in ten of the images of 1, 8 and 9 among scikit-learn's digits. A classifier that learns from random
images overlooks many of these. One that learns from a class-balanced mux, which is a recipe of three lines,
finds at least 0.7 of each digit. Shows the recall of each digit with and without.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split

import pescador

RARE = (1, 8, 9)
CLASSES = np.arange(10)


def recalls(samples):
    """Return the recall of each digit, after training on 300 batches of 32 samples of a stream."""
    classifier = SGDClassifier("log_loss", alpha=0.001, random_state=0)
    for batch in pescador.buffer_stream(samples(max_iter=300 * 32), 32):
        classifier.partial_fit(batch["X"], batch["Y"], classes=CLASSES)
    return recall_score(Y_test, classifier.predict(X_test), average=None)


X, Y = load_digits(return_X_y=True)
X_train, X_test, Y_train, Y_test = train_test_split(X / 16, Y, test_size=0.3, random_state=0, stratify=Y)
kept = ~np.isin(Y_train, RARE)
for digit in RARE:
    kept[np.flatnonzero(Y_train == digit)[::10]] = True
X_train, Y_train = X_train[kept], Y_train[kept]

random_images = pescador.Streamer(pescador.rows, {"X": X_train, "Y": Y_train}, rng=np.random.default_rng(0))

# The recipe: the samples of each class, a stream of each, and a mux that draws from all of them alike.
# (With files, the stream of a class would be a StochasticMux of the files of that class.)
classes = [{"X": X_train[Y_train == digit], "Y": Y_train[Y_train == digit]} for digit in CLASSES]
streams = [pescador.Streamer(pescador.rows, samples, rng=pescador.RNG) for samples in classes]
balanced = pescador.ShuffledMux(streams, random_state=0)

without, with_balance = recalls(random_images), recalls(balanced)
print("digit  images  recall  balanced")
for digit in CLASSES:
    n_images = np.sum(Y_train == digit)
    print(f"{digit:5} {n_images:7} {without[digit]:7.2f} {with_balance[digit]:9.2f}")
print(f"mean          {without.mean():7.2f} {with_balance.mean():9.2f}")

assert with_balance.min() >= 0.7

plt.figure(figsize=(8, 3.5), layout="constrained")
plt.bar(CLASSES - 0.2, without, 0.38, label="random images")
plt.bar(CLASSES + 0.2, with_balance, 0.38, label="class-balanced mux")
plt.xticks(CLASSES)
plt.xlabel("digit (1, 8 and 9 are rare)")
plt.ylabel("recall")
plt.legend(loc="lower left")
plt.show()
