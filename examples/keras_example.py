"""Keras: train a small convolutional network on a mux of clean and noisy digits.

Needs Keras 3 and torch, and runs on the CPU. If they are not installed, the script says so and ends. Prints
the progress of the training, and the scores on samples that were held out.
"""

import os
import sys

import numpy as np

import pescador

os.environ["KERAS_BACKEND"] = "torch"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the CPU is enough here
try:
    import keras
    import torch
except ImportError as error:
    print(f"skipped: this example needs Keras 3 and torch ({error})")
    sys.exit(0)
from keras.layers import Conv2D, Dense, Dropout, Flatten, Input, MaxPooling2D
from keras.models import Sequential
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

batch_size = 128
num_classes = 10
epochs = 8
img_rows, img_cols = 8, 8


def setup_data():
    """Return the shape of an image, and images with one-hot labels for training and for testing."""
    X, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0)

    input_shape = (img_rows, img_cols, 1)
    x_train = x_train.reshape(-1, *input_shape).astype("float32") / 16
    x_test = x_test.reshape(-1, *input_shape).astype("float32") / 16
    print("x_train shape:", x_train.shape)
    print(x_test.shape[0], "test samples")

    y_train = keras.utils.to_categorical(y_train, num_classes)
    y_test = keras.utils.to_categorical(y_test, num_classes)
    return input_shape, (x_train, y_train), (x_test, y_test)


def build_model(input_shape):
    """Return a compiled model for images of this shape."""
    model = Sequential()
    model.add(Input(shape=input_shape))
    model.add(Conv2D(32, kernel_size=(3, 3), activation="relu"))
    model.add(Conv2D(64, kernel_size=(3, 3), activation="relu"))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Dropout(0.25))
    model.add(Flatten())
    model.add(Dense(128, activation="relu"))
    model.add(Dropout(0.5))
    model.add(Dense(num_classes, activation="softmax"))

    model.compile(
        loss=keras.losses.categorical_crossentropy,
        optimizer=keras.optimizers.Adadelta(learning_rate=1.0),
        metrics=["accuracy"],
    )
    return model


def sampler(X, y):
    """Yield random pairs of an image and its one-hot label, forever."""
    X = np.atleast_2d(X)
    y = np.atleast_1d(y)

    n = X.shape[0]
    while True:
        i = np.random.randint(0, n)
        yield {"X": X[i], "y": y[i]}


def additive_noise(stream, key="X", scale=1e-1):
    """Add Gaussian noise to one key of each item of a stream."""
    for data in stream:
        noise = scale * np.random.randn(*data[key].shape)
        data[key] = data[key] + noise
        yield data


np.random.seed(0)
keras.utils.set_random_seed(0)
torch.set_num_threads(2)
input_shape, (X_train, Y_train), (X_test, Y_test) = setup_data()
steps_per_epoch = len(X_train) // batch_size

# Two streams of the same data, one of them with noise. Any augmentation can be written in this way.
stream = pescador.Streamer(sampler, X_train, Y_train)
noisy_stream = pescador.Streamer(additive_noise, stream, "X")

# Both streams are always active, and the mux never ends
mux = pescador.StochasticMux([stream, noisy_stream], n_active=2, rate=None)

batches = pescador.buffer_stream(mux, batch_size)

model = build_model(input_shape)
try:
    model.fit(
        pescador.tuples(batches, "X", "y"),
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        verbose=2,
        shuffle=False,  # the stream is already shuffled
        validation_data=(X_test, Y_test),
    )
except KeyboardInterrupt:
    print("Stopping early")

loss, accuracy = model.evaluate(X_test, Y_test, verbose=0)
print(f"Test loss: {loss:.4f}")
print(f"Test accuracy: {accuracy:.4f}")
