"""
PyTorch
=======

Teach a small convolutional network three kinds of sound, to an accuracy of at least 0.95.

Writes 300 WAV files of one second or more to a temporary folder: tones, sweeps and clicks, all in noise. A
stream of each file gives random crops. A worker process mixes them, computes log-mel spectrograms, and makes
batches, while the network learns. Validation is on the same crops of held-out files after each epoch. (The
same two loaders can be given to fit() of Lightning.)
"""

import tempfile
import wave
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import pescador
from pescador.adaptors.torch import StreamDataset

KINDS = ("tone", "sweep", "clicks")
RATE = 8000  # samples per second
CROP = 4096  # samples
WINDOW, HOP, N_MELS = 256, 128, 32


def write_clip(path, kind, rng):
    """Write a WAV file (16 bits, mono)."""
    time = np.arange(rng.integers(RATE, 2 * RATE)) / RATE
    low, width = rng.uniform(300, 2000), rng.uniform(800, 1600)  # Hz
    if kind == "tone":
        signal = np.sin(2 * np.pi * low * time)
    elif kind == "sweep":  # up and down, twice a second
        signal = np.sin(2 * np.pi * (low + width / 2) * time + width / 4 * np.sin(4 * np.pi * time))
    else:  # 40 a second
        signal = np.where(rng.random(len(time)) < 0.005, rng.choice([-2.0, 2.0], len(time)), 0)
    signal = 0.2 * signal + 0.1 * rng.standard_normal(len(time))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((signal.clip(-1, 1) * 32767).astype("<i2").tobytes())


def kind_of(path):
    """Return the kind of sound that a file such as "tone-007.wav" has."""
    return path.stem.partition("-")[0]


def crops(path, label, rng):
    """Yield random crops of a WAV file, forever."""
    with wave.open(str(path)) as file:
        signal = np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768)
    for crop in pescador.patches({"X": signal}, CROP, rng=rng):
        yield {**crop, "Y": label}


def mel_filters():
    """Return a matrix of triangles, of which the centers are equally far from each other in mel."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 1400), N_MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, np.newaxis]
    rising, falling = (bins - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - bins) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(item):
    """Return an item with a log-mel spectrogram, of shape (1, mels, frames), in place of the sound."""
    frames = np.lib.stride_tricks.sliding_window_view(item["X"], WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    return {**item, "X": np.log10(1e-3 + power @ FILTERS).T[np.newaxis].astype("float32")}


def spectrograms(paths):
    """Return a stream of log-mel spectrograms for each file."""
    streams = [pescador.Streamer(crops, path, KINDS.index(kind_of(path)), pescador.RNG) for path in paths]
    return [pescador.Streamer(map, log_mel, stream) for stream in streams]


FILTERS = mel_filters()
torch.manual_seed(0)
torch.set_num_threads(1)  # the batches are small, and the worker needs a core
network = nn.Sequential(
    nn.Sequential(nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
    nn.Sequential(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
    nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(KINDS))),
)
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

with tempfile.TemporaryDirectory() as folder:
    paths = [Path(folder) / f"{kind}-{i:03d}.wav" for i in range(100) for kind in KINDS]
    rng = np.random.default_rng(0)
    for path in paths:
        write_clip(path, kind_of(path), rng)

    pictures = [next(iter(stream))["X"][0] for stream in spectrograms(paths[:3])]  # one of each kind

    # 48 files at a time; each is replaced after 8 crops on average.
    mux = pescador.StochasticMux(spectrograms(paths[:240]), n_active=48, rate=8, random_state=0)
    batches = pescador.Streamer(pescador.buffer_stream, mux, 32)
    # A batch of one crop of each file that is held out.
    held_out = pescador.RoundRobinMux(spectrograms(paths[240:]), mode="exhaustive", random_state=1)
    validation = pescador.Streamer(pescador.buffer_stream, held_out, 60)

    with (
        StreamDataset(pescador.ParallelStreamer(batches), length=40) as train_set,
        StreamDataset(validation, length=1, advance=False) as validation_set,
    ):
        for epoch in range(4):
            network.train()
            for batch in tqdm(DataLoader(train_set, batch_size=None), desc=f"epoch {epoch}"):
                loss = nn.functional.cross_entropy(network(batch["X"]), batch["Y"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            network.eval()
            (batch,) = DataLoader(validation_set, batch_size=None)
            with torch.no_grad():
                accuracy = float((network(batch["X"]).argmax(1) == batch["Y"]).float().mean())
            print(f"epoch {epoch}: accuracy {accuracy:.3f} on {len(batch['Y'])} held-out clips")

assert accuracy >= 0.95

figure, all_axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for axes, kind, picture in zip(all_axes, KINDS, pictures, strict=True):
    axes.imshow(picture, origin="lower", aspect="auto")
    axes.set(title=kind, xlabel="frame")
all_axes[0].set_ylabel("mel band")
plt.show()
