"""
Parallel streaming
==================

How much time a background worker saves when samples are costly to make.

Here it takes about as long to make a sample as to use it. Without a worker, the two alternate. With a
worker they overlap, so an iteration takes about half the time on two free cores. In a thread they overlap
only where NumPy releases Python's lock. Prints the time of an iteration for each backend.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import pescador


def costly_function(X, n_ops=20):
    """Mimic costly processing: pointless math on an array."""
    for n in range(n_ops):
        X = X**3.0 if n % 2 else X ** (1.0 / 3)
    return X


def data_gen(n_ops=20):
    """Yield data that is costly to make."""
    while True:
        X = np.random.uniform(size=(64, 64))
        yield dict(X=costly_function(X, n_ops), y=np.random.randint(10, size=(1,)))


def timed_sampling(stream, n_iter, desc):
    """Print and return the milliseconds that it takes to make and use one item, on average."""
    list(stream(max_iter=1))  # start the worker, which is kept, before the clock starts
    start_time = time.perf_counter()
    for data in stream(max_iter=n_iter):
        costly_function(data["X"])
    milliseconds = 1000 * (time.perf_counter() - start_time) / n_iter
    print(f"{desc:24} :: Average time per iteration: {milliseconds:7.3f} ms", flush=True)
    return milliseconds


max_iter = 1e2
stream = pescador.Streamer(data_gen)

timed_sampling(stream, max_iter, "Single-threaded")

zstream = pescador.ZMQStreamer(stream)
timed_sampling(zstream, max_iter, "ZMQ")
zstream.close()

for backend in ("serial", "thread", "zmq", "shm"):
    with pescador.ParallelStreamer(stream, backend=backend) as parallel:
        timed_sampling(parallel, max_iter, f"backend={backend!r}")

# The stream of batches is a recipe, too, so the batches are made in the worker.
buffer_size = 16
batches = pescador.Streamer(pescador.buffer_stream, stream, buffer_size)

timed_sampling(batches, max_iter, "Single-threaded Batches")

times = {}
for backend in ("serial", "thread", "zmq", "shm"):
    with pescador.ParallelStreamer(batches, backend=backend) as parallel:
        times[backend] = timed_sampling(parallel, max_iter, f"Batches, {backend!r}")

plt.figure(figsize=(6, 3), layout="constrained")
plt.barh(list(times), list(times.values()))
plt.gca().invert_yaxis()  # the first one is at the top
plt.xlabel("milliseconds to make and use a batch")
plt.show()
