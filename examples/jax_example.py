"""
JAX
===

Train a network on a stream, without an adaptor, to an accuracy of at least 0.9.

The batches come from a worker process as dicts of NumPy arrays, which jax.device_put takes as they are. Shows
what needs care: strings have no place on a device, so a map leaves them out; integers of 64 bits become such
of 32 bits; and a batch is put on the device while the step before it is still computed.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import pescador

N_BATCHES, BATCH_SIZE, STEP_SIZE = 800, 64, 0.1


def noisy_digits(images, labels, rng):
    """Yield random images with Gaussian noise, with the name of each, forever."""
    while True:
        i = rng.integers(len(images))
        noise = 0.1 * rng.standard_normal(images.shape[1], "float32")
        yield {"X": images[i] + noise, "Y": labels[i], "name": f"image {i}"}


def numbers(batch):
    """Return what of a batch can be put on a device: arrays of numbers."""
    return {"X": batch["X"], "Y": batch["Y"]}


def predict(weights, X):
    """Return the scores of each class."""
    hidden = jax.nn.relu(X @ weights["first"])
    return hidden @ weights["second"]


def loss(weights, batch):
    """Return the cross-entropy of a batch."""
    scores = jax.nn.log_softmax(predict(weights, batch["X"]))
    return -jnp.take_along_axis(scores, batch["Y"][:, None], axis=1).mean()


@jax.jit
def step(weights, batch):
    """Return the weights after a step of gradient descent, and the loss before it."""
    value, gradients = jax.value_and_grad(loss)(weights, batch)
    return jax.tree.map(lambda weight, slope: weight - STEP_SIZE * slope, weights, gradients), value


np.random.seed(0)  # governs pescador.RNG where no mux has a random_state
X, Y = load_digits(return_X_y=True)
X_train, X_test, Y_train, Y_test = train_test_split(
    (X / 16).astype("float32"), Y, test_size=0.2, random_state=0
)

keys = jax.random.split(jax.random.key(0))
weights = {
    "first": jax.random.normal(keys[0], (64, 128)) / 8,
    "second": jax.random.normal(keys[1], (128, 10)) / 12,
}

samples = pescador.Streamer(noisy_digits, X_train, Y_train, pescador.RNG)
batches = pescador.Streamer(pescador.buffer_stream, samples, BATCH_SIZE)
arrays = pescador.Streamer(map, numbers, batches)

losses = []
with pescador.ParallelStreamer(arrays) as stream:
    on_device = map(jax.device_put, stream)
    batch = next(on_device)
    print({key: f"{array.dtype}{array.shape} on {array.device}" for key, array in batch.items()})
    with tqdm(total=N_BATCHES) as progress:
        for _ in range(N_BATCHES):
            weights, value = step(weights, batch)  # returns before it is computed
            batch = next(on_device)  # comes meanwhile
            losses.append(float(value))  # waits for the step
            progress.set_postfix(loss=f"{value:.3f}", refresh=False)
            progress.update()

accuracy = float((predict(weights, X_test).argmax(axis=1) == Y_test).mean())
print(f"accuracy on held-out images: {accuracy:.3f}")
assert accuracy >= 0.9

plt.plot(losses)
plt.xlabel("step")
plt.ylabel("loss of the batch")
plt.show()
