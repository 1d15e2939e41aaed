"""
HDF5 and Zarr
=============

Random excerpts of recordings in either, for a classifier with an accuracy of at least 0.9.

Makes recordings of an accelerometer on somebody who rests, walks and runs. Half of them are groups of an HDF5
file, and half of them groups of a Zarr folder, both in a temporary folder. Each has two arrays, the samples
and the activity, which pescador.patches cuts at the same place. Only the excerpts are read.
"""

import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import zarr
from sklearn.linear_model import SGDClassifier
from tqdm import tqdm

import pescador

ACTIVITIES = ("rest", "walk", "run")
STEPS_PER_SECOND = np.array([0, 1.8, 2.8])
RATE = 50  # samples per second
LENGTH = 128  # samples of an excerpt
N_BATCHES = 150


def record(rng):
    """Return a recording: accelerations of shape (time, 3), and the activity at each time."""
    spans = rng.integers(10, 30, size=8) * RATE
    activity = np.repeat(rng.integers(0, len(ACTIVITIES), size=len(spans)), spans)
    steps = np.cumsum(STEPS_PER_SECOND[activity] * rng.uniform(0.9, 1.1)) / RATE
    swing = np.sin(2 * np.pi * steps)[:, np.newaxis] * rng.uniform(0.5, 1.5, size=3)
    return {
        "acceleration": (swing + rng.normal(scale=0.5, size=swing.shape)).astype("float32"),
        "activity": activity,
    }


def hdf5_excerpts(path, name, rng):
    """Yield random excerpts of a group of an HDF5 file, forever."""
    with h5py.File(path) as file:  # opened here, because an open file cannot be sent to a worker
        yield from pescador.patches(file[name], LENGTH, rng=rng)


def spectrum(excerpt):
    """Return the spectrum of an excerpt of shape (time, 3), and what the activity is at its middle."""
    magnitudes = np.abs(np.fft.rfft(excerpt["acceleration"], axis=0))[:20]
    return {"X": np.log1p(magnitudes).ravel(), "Y": excerpt["activity"][LENGTH // 2]}


rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder:
    hdf5_path, zarr_path = Path(folder) / "recordings.h5", Path(folder) / "recordings.zarr"
    names = [f"recording{i:02d}" for i in range(12)]
    with h5py.File(hdf5_path, "w") as file:
        for name in names:
            for key, array in record(rng).items():
                file[f"{name}/{key}"] = array
    root = zarr.open_group(zarr_path, mode="w")
    for name in names:
        group = root.create_group(name)
        for key, array in record(rng).items():
            group[key] = array

    # A group in a Zarr folder is a folder, so its path is enough.
    streams = [pescador.Streamer(hdf5_excerpts, hdf5_path, name, pescador.RNG) for name in names] + [
        pescador.Streamer(pescador.patches, zarr_path / name, LENGTH, rng=pescador.RNG) for name in names
    ]
    features = [pescador.Streamer(map, spectrum, stream) for stream in streams]

    excerpts = {int(item["activity"][0]): item["acceleration"] for item in streams[0](max_iter=100)}

    # The last two recordings of each are held out.
    held_out = features[10:12] + features[22:]
    mux = pescador.StochasticMux(features[:10] + features[12:22], n_active=8, rate=32, random_state=0)
    batches = pescador.Streamer(pescador.buffer_stream, mux, 32)
    test_mux = pescador.RoundRobinMux(held_out, random_state=1)
    test = next(pescador.buffer_stream(test_mux(max_iter=500), 500))

    classifier = SGDClassifier(random_state=0)
    with pescador.ParallelStreamer(batches) as stream:
        for batch in tqdm(stream(max_iter=N_BATCHES), total=N_BATCHES):
            classifier.partial_fit(batch["X"], batch["Y"], classes=range(3))

predicted = classifier.predict(test["X"])
for i, activity in enumerate(ACTIVITIES):
    print(f"{activity}: {np.mean(predicted[test['Y'] == i] == i):.3f} of the excerpts are found")
accuracy = np.mean(predicted == test["Y"])
print(f"accuracy {accuracy:.3f} on {len(predicted)} excerpts of recordings that were held out")
assert accuracy >= 0.9

figure, all_axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for axes, (activity, excerpt) in zip(all_axes, sorted(excerpts.items()), strict=False):
    axes.plot(np.arange(LENGTH) / RATE, excerpt)
    axes.set(title=f"begins with: {ACTIVITIES[activity]}", xlabel="seconds")
all_axes[0].set_ylabel("acceleration")
plt.show()
