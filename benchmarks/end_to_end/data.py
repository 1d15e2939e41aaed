"""Three data sets of files, and how a file becomes samples: the same functions for every loader.

``sounds``  300 FLAC files of 10 s: a random second as a log-mel spectrogram
``images``  1,000 JPEG files of 256 x 256: a random crop of 224 x 224, mirrored every other time
``arrays``  30,000 NPZ archives of 20 rows: random rows
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

Item = dict[str, np.ndarray]

NUMBER = {"sounds": 300, "images": 1000, "arrays": 30_000}
SUFFIX = {"sounds": "flac", "images": "jpg", "arrays": "npz"}
SHARDS = 8  # tar archives, for WebDataset
RATE, WINDOW, HOP, BANDS = 22_050, 1024, 256, 64  # of sounds
SIDE, CROP = 256, 224  # of images


def write(name: str, folder: Path, quick: bool) -> None:
    """Write a data set to `folder`, and the same files once more into tar archives."""
    rng = np.random.default_rng(0)
    make = {"sounds": flac, "images": jpeg, "arrays": npz}[name]
    number = NUMBER[name] // (30 if quick else 1)
    different = [make(rng) for _ in range(min(number, 100))]
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(shard, number, SHARDS):
                content, file = different[i % len(different)], f"{i:05}.{SUFFIX[name]}"
                (folder / file).write_bytes(content)
                header = tarfile.TarInfo(file)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def flac(rng: np.random.Generator) -> bytes:
    import soundfile

    seconds = np.arange(10 * RATE) / RATE
    sound = sum(np.sin(2 * np.pi * rng.uniform(80, 4000) * seconds) for _ in range(5)) / 10
    sound += 0.02 * rng.standard_normal(len(sound))
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="FLAC")
    return file.getvalue()


def jpeg(rng: np.random.Generator) -> bytes:
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), "uint8")).resize((SIDE, SIDE), Image.BICUBIC)
    noise = rng.integers(-8, 8, (SIDE, SIDE, 3))
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype("uint8")).save(file, "JPEG", quality=90)
    return file.getvalue()


def npz(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    np.savez(file, X=rng.standard_normal((20, 64), np.float32), y=rng.integers(0, 10, 20))
    return file.getvalue()


def files(folder: str, name: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob(f"*.{SUFFIX[name]}"))


# -- from a file to a sample --


@cache
def mel_filters() -> np.ndarray:
    """Return triangular filters of shape (frequencies, bands)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, np.newaxis]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)


@cache
def window() -> np.ndarray:
    return np.hanning(WINDOW).astype(np.float32)


def log_mel(sound: np.ndarray) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP] * window()
    spectrum = np.fft.rfft(frames)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(power @ mel_filters() + 1e-6)


def sound(file, rng) -> Item:
    """Return one second of a file (a path, or a file that is open) as a spectrogram of 83 x 64."""
    import soundfile

    with soundfile.SoundFile(file) as opened:
        opened.seek(int(rng.integers(opened.frames - RATE)))
        return {"X": log_mel(opened.read(RATE, "float32"))}


def image(file, rng) -> Item:
    """Return a crop of an image: 224 x 224 x 3 bytes."""
    from PIL import Image

    left, top = rng.integers(SIDE - CROP + 1, size=2).tolist()
    with Image.open(file) as opened:
        crop = opened.crop((left, top, left + CROP, top + CROP))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {"X": np.array(crop)}


SAMPLE: dict[str, Callable[..., Item]] = {"sounds": sound, "images": image}


def rows(file, rng) -> Iterator[Item]:
    """Yield random rows of an archive, without end."""
    with np.load(file) as archive:
        x, y = archive["X"], archive["y"]
    while True:
        for i in rng.integers(len(x), size=8).tolist():
            yield {"X": x[i], "y": y[i]}


class Archive:
    """A source for Grain: an archive's samples by number."""

    def __init__(self, path):
        with np.load(path) as archive:
            self.x, self.y = archive["X"], archive["y"]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"X": self.x[i], "y": self.y[i]}
