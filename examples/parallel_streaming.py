"""Parallel streaming: what a background worker gains when samples are costly to make.

Making a sample and using it cost about the same here. In one thread they take turns; with a worker they
overlap, so that an iteration takes about half the time on two free cores. A thread overlaps as far as NumPy
releases Python's lock. Prints the time of an iteration for each backend.
"""

import time

import numpy as np

import pescador


def costly_function(X, n_ops=20):
    """Mimic costly processing: pointless math on an array."""
    for n in range(n_ops):
        X = X**3.0 if n % 2 else X ** (1.0 / 3)
    return X


def data_gen(n_ops=20):
    """Yield data, and burn compute cycles in between."""
    while True:
        X = np.random.uniform(size=(64, 64))
        yield dict(X=costly_function(X, n_ops), y=np.random.randint(10, size=(1,)))


def timed_sampling(stream, n_iter, desc):
    """Print the average time of an iteration in which a sample is made and used."""
    list(stream(max_iter=1))  # a worker starts at the first item, and is kept
    start_time = time.perf_counter()
    for data in stream(max_iter=n_iter):
        costly_function(data["X"])
    duration = time.perf_counter() - start_time
    print(f"{desc:24} :: Average time per iteration: {1000 * duration / n_iter:7.3f} ms", flush=True)


max_iter = 1e2
stream = pescador.Streamer(data_gen)

timed_sampling(stream, max_iter, "Single-threaded")

zstream = pescador.ZMQStreamer(stream)
timed_sampling(zstream, max_iter, "ZMQ")
zstream.close()

for backend in ("serial", "thread", "zmq", "shm"):
    with pescador.ParallelStreamer(stream, backend=backend) as parallel:
        timed_sampling(parallel, max_iter, f"backend={backend!r}")

# With maps: the batches are recipes, too, so that they are made in the worker.
buffer_size = 16
batches = pescador.Streamer(pescador.buffer_stream, stream, buffer_size)

timed_sampling(batches, max_iter, "Single-threaded Batches")

for backend in ("serial", "thread", "zmq", "shm"):
    with pescador.ParallelStreamer(batches, backend=backend) as parallel:
        timed_sampling(parallel, max_iter, f"Batches, {backend!r}")
