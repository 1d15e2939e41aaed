"""
Keras
=====

Train a convolutional network on a mux of clean and noisy digits, to an accuracy of at least 0.9.

Runs on each backend of Keras, here on that of torch. A StreamDataset gives fit() epochs of a known length, of
which each is the next one of the stream, and the same validation set each time. The batches are made in a
worker process.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import matplotlib.pyplot as plt
import torch
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import pescador
from pescador.adaptors.keras import StreamDataset

BATCH_SIZE = 64


def sampler(X, y, rng):
    """Yield random pairs of an image and its digit, forever."""
    while True:
        i = rng.integers(len(X))
        yield {"X": X[i], "y": y[i]}


def additive_noise(stream, rng, scale=0.1):
    """Add Gaussian noise to the images of a stream."""
    for data in stream:
        yield {**data, "X": data["X"] + scale * rng.standard_normal(data["X"].shape, "float32")}


def build_model():
    """Return a compiled model for images of shape (8, 8, 1)."""
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


keras.utils.set_random_seed(0)  # also NumPy's seed
torch.set_num_threads(1)  # the batches are small, and the worker needs a core
images, digits = load_digits(return_X_y=True)
images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
X_train, X_test, y_train, y_test = train_test_split(images, digits, test_size=0.2, random_state=0)

# Two streams of the same data, one of them with noise. Any augmentation can be written in this way.
stream = pescador.Streamer(sampler, X_train, y_train, pescador.RNG)
noisy_stream = pescador.Streamer(additive_noise, stream, pescador.RNG)

# Both streams are always active, and the mux never ends.
mux = pescador.StochasticMux([stream, noisy_stream], n_active=2, rate=None, random_state=0)
batches = pescador.Streamer(pescador.buffer_stream, mux, BATCH_SIZE)

# The images that are held out, with noise that is the same in each epoch.
held_out = pescador.Streamer([{"X": X, "y": y} for X, y in zip(X_test, y_test, strict=True)])
noisy_held_out = pescador.Streamer(additive_noise, held_out, pescador.RNG)
validation = pescador.Streamer(pescador.buffer_stream, noisy_held_out, BATCH_SIZE, partial=True)
n_validation = -(-len(X_test) // BATCH_SIZE)

model = build_model()
with (
    StreamDataset(pescador.ParallelStreamer(batches), 40, inputs="X", outputs="y") as training_set,
    StreamDataset(validation, n_validation, inputs="X", outputs="y", advance=False) as validation_set,
):
    history = model.fit(training_set, epochs=10, verbose=2, validation_data=validation_set)
    loss, accuracy = model.evaluate(validation_set, verbose=0)

print(f"loss {loss:.3f} and accuracy {accuracy:.3f} on {len(X_test)} held-out images with noise")
assert accuracy >= 0.9

plt.plot(history.history["accuracy"], label="training")
plt.plot(history.history["val_accuracy"], label="validation")
plt.xlabel("epoch")
plt.ylabel("accuracy")
plt.legend()
plt.show()
