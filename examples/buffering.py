"""
Buffering
=========

Make batches from single samples.

Shows that buffer_stream returns a generator, which can be used up only once. Then shows how to make a
Streamer of batches instead: a recipe that can be opened any number of times, and sent to a background
worker.
"""

import numpy as np
from sklearn.datasets import load_iris

import pescador


def noisy_samples(X, Y, sigma=1.0):
    """Yield random samples with additive Gaussian noise, forever."""
    n, d = X.shape

    while True:
        i = np.random.randint(0, n)
        yield dict(X=X[i] + sigma * np.random.randn(d), Y=Y[i])


X, Y = load_iris(return_X_y=True)
streamer = pescador.Streamer(noisy_samples, X, Y)
minibatch_size = 128

sample = next(iter(streamer))
print("a sample:", {key: np.shape(value) for key, value in sample.items()})

# A generator of batches: the samples are stacked along a new first axis
buffered_sample_gen = pescador.buffer_stream(streamer, minibatch_size)
batch = next(buffered_sample_gen)
print("a batch: ", {key: value.shape for key, value in batch.items()})

# A Streamer of this generator goes on where the generator stopped
batch_streamer = pescador.Streamer(buffered_sample_gen)
print("batches from a Streamer of the generator:", len(list(batch_streamer(max_iter=3))))

# A Streamer of the recipe starts again each time
batch_streamer = pescador.Streamer(pescador.buffer_stream, streamer, minibatch_size)
for epoch in range(2):
    print(f"batches from a Streamer of the recipe, epoch {epoch}:", len(list(batch_streamer(max_iter=3))))

# At the end of a finite stream, partial=True also yields the samples that do not fill a batch
for partial in (False, True):
    batches = pescador.buffer_stream(streamer(max_iter=300), minibatch_size, partial=partial)
    print(f"300 samples with partial={partial}:", [len(batch["X"]) for batch in batches])

# Pieces of different lengths are joined along an axis that they already have
pieces = [dict(X=np.zeros((length, 4))) for length in (2, 5, 3)]
print("pieces of 2, 5 and 3 rows:", next(pescador.buffer_stream(pieces, 3, axis=0))["X"].shape)
