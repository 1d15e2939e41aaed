"""
Resume after a kill
===================

Train a model, kill it in the middle with SIGKILL, and go on: the result is the same as without the kill.

This script runs itself three times, each time in a process of its own. The first one trains a classifier of
digits from start to end. The second one does the same and is killed, as by a machine that fails. The third
one goes on from the last checkpoint of the second. The batches come out of a worker process, from a mux with
one stream for each digit. A checkpoint holds the model and the state of the stream, which is some hundred
bytes: the stream goes on with exactly the batch that would have come next. The accuracy on
what was learned is at least 0.9 either way.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import pescador

N_BATCHES = 200
BATCHES_A_CHECKPOINT = 20
KILLED_AT = 110


def sample_digit(images, digit, rng):
    """Yield random images of one digit with additive Gaussian noise, forever."""
    while True:
        image = images[rng.integers(len(images))]
        yield dict(X=image + rng.standard_normal(image.shape), Y=digit)


def make_batches(images, digits):
    """Return a stream of batches."""
    streams = [
        pescador.Streamer(sample_digit, images[digits == digit], digit, pescador.RNG) for digit in range(10)
    ]
    mux = pescador.ShuffledMux(streams, random_state=0)
    return pescador.ParallelStreamer(pescador.Streamer(pescador.buffer_stream, mux, 32), backend="shm")


def save(path, checkpoint):
    """Save a checkpoint. Whoever is killed meanwhile leaves the one that was there before."""
    unfinished = path.with_suffix(".unfinished")
    with open(unfinished, "wb") as file:
        pickle.dump(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def train(path):
    """Train from the checkpoint at a path, if there is one, and print the number of each batch."""
    model = SGDClassifier(random_state=0)
    n_done = 0
    batches = make_batches(*load_digits(return_X_y=True))
    if path.exists():
        checkpoint = pickle.loads(path.read_bytes())
        model, n_done = checkpoint["model"], checkpoint["n_done"]
        batches.load_state_dict(checkpoint["stream"])
        print("goes on after batch", n_done, flush=True)
    for batch in batches(max_iter=N_BATCHES):  # which counts from the very beginning
        model.partial_fit(batch["X"], batch["Y"], classes=np.arange(10))
        time.sleep(0.003)  # a larger model would take longer
        n_done += 1
        print(n_done, flush=True)
        if n_done % BATCHES_A_CHECKPOINT == 0:
            save(path, dict(model=model, n_done=n_done, stream=batches.state_dict()))
    batches.close()


def run(path, killed_at=None):
    """Train in a process of its own, and return what it printed."""
    lines = []
    with subprocess.Popen([sys.executable, sys.argv[0], path], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] == str(killed_at):
                process.kill()
    if killed_at is None and process.returncode:
        raise SystemExit(f"training ended with exit code {process.returncode}")
    return lines


if len(sys.argv) > 1:
    train(Path(sys.argv[1]))
    sys.exit()

with tempfile.TemporaryDirectory() as folder:
    without, killed = Path(folder) / "without", Path(folder) / "killed"
    print("without a kill: trained on", run(without)[-1], "batches")
    n_before = int(run(killed, KILLED_AT)[-1])
    print("killed after batch", n_before)
    lines = run(killed)
    print("a new process", lines[0], "and ends with batch", lines[-1])
    one, other = (pickle.loads(path.read_bytes()) for path in (without, killed))

X, Y = load_digits(return_X_y=True)
accuracy = one["model"].score(X, Y)
print(f"accuracy without a kill {accuracy:.4f}, with it {other['model'].score(X, Y):.4f}")
assert accuracy >= 0.9
same = np.array_equal(one["model"].coef_, other["model"].coef_)
print("all coefficients are the same:", same)
if not same:
    raise SystemExit("the models differ")

import matplotlib.pyplot as plt  # noqa: E402 -- the three processes end above, and would import it in vain

# The last process takes up the checkpoint, so it makes the batches after that again.
n_saved = int(lines[0].split()[-1])
plt.figure(figsize=(8, 2), layout="constrained")
plt.barh("without a kill", N_BATCHES)
plt.barh("killed", n_before)
plt.barh("goes on", N_BATCHES - n_saved, left=n_saved)
plt.axvline(n_saved, color="black", linestyle=":")
plt.gca().invert_yaxis()  # the first one is at the top
plt.xlabel("batches (dotted: the last checkpoint of the process that was killed)")
plt.show()
