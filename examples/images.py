"""
Images
======

JPEG files, cropped and rotated at random, for a classifier with an accuracy of at least 0.8.

Writes scikit-learn's digits as JPEG files to a temporary folder; two of them are damaged. A stream of each
file gives versions of its image, and a mux in a worker process mixes 100 of them and makes batches. The
held-out images are moved and rotated, too: a classifier that has learned without augmentation finds little
more than half of them. Prints both scores.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import pescador

SIZE, CROP = 16, 13  # pixels
N_BATCHES, BATCH_SIZE = 500, 64


def write_jpegs(folder, images, digits):
    """Write images to a file each, in a folder for each digit."""
    for i, (image, digit) in enumerate(zip(images, digits, strict=True)):
        path = folder / str(digit) / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype("uint8")).resize((SIZE, SIZE)).save(path, quality=90)


def pixels(image):
    """Return a vector of floats from 0 to 1."""
    return np.asarray(image, "float32").ravel() / 255


def versions(path, augmented, rng):
    """Yield versions of an image, forever."""
    with Image.open(path) as file:
        image = file.convert("L")
    middle = (SIZE - CROP) // 2
    while True:
        left, top, angle = middle, middle, 0
        if augmented:
            left, top = rng.integers(0, SIZE - CROP, size=2, endpoint=True).tolist()
            angle = rng.uniform(-10, 10)
            # There is no flip, because a mirrored digit is none.
        crop = image.rotate(angle).crop((left, top, left + CROP, top + CROP))
        yield {"X": pixels(crop), "Y": int(path.parent.name)}


def batches_of(paths, augmented):
    """Return a stream of batches."""
    streams = [pescador.Streamer(versions, path, augmented, pescador.RNG) for path in paths]
    # A stream whose file cannot be read ends, with a warning, and the mux goes on without it.
    readable = [pescador.Streamer(pescador.skip_errors, stream, OSError) for stream in streams]
    # 100 images at a time; each is replaced after 8 versions on average.
    mux = pescador.StochasticMux(readable, n_active=100, rate=8, random_state=0)
    return pescador.Streamer(pescador.buffer_stream, mux, BATCH_SIZE)


def train(batches, desc):
    """Return a classifier that has learned from batches, which a worker makes."""
    classifier = MLPClassifier((128,), learning_rate_init=0.005, random_state=0)
    with pescador.ParallelStreamer(batches) as stream, threadpool_limits(1):
        for batch in tqdm(stream(max_iter=N_BATCHES), total=N_BATCHES, desc=desc):
            classifier.partial_fit(batch["X"], batch["Y"], classes=np.arange(10))
    return classifier


X, Y = load_digits(return_X_y=True)
X_train, X_test, Y_train, Y_test = train_test_split(X.reshape(-1, 8, 8), Y, test_size=0.2, random_state=0)

with tempfile.TemporaryDirectory() as folder:
    write_jpegs(Path(folder), X_train, Y_train)
    paths = sorted(Path(folder).glob("*/*.jpg"))
    for path in paths[::1000]:
        path.write_bytes(path.read_bytes()[:100])

    examples = list(pescador.Streamer(versions, paths[1], True, np.random.default_rng(0))(max_iter=6))

    # The held-out images are cropped and rotated, too, each in one way.
    rng = np.random.default_rng(0)
    write_jpegs(Path(folder) / "test", X_test, Y_test)
    held_out = [next(versions(path, True, rng)) for path in sorted(Path(folder).glob("test/*/*.jpg"))]
    test = next(pescador.buffer_stream(held_out, len(held_out)))

    scores = {}
    for augmented in (False, True):
        desc = "augmented" if augmented else "as they are"
        batches = batches_of(paths, augmented)
        scores[desc] = train(batches, desc).score(test["X"], test["Y"])

for desc, accuracy in scores.items():
    print(f"{desc:11}: accuracy {accuracy:.3f} on {len(test['Y'])} held-out images")
assert accuracy >= 0.8

figure, all_axes = plt.subplots(1, 6, figsize=(9, 1.8), layout="constrained")
for axes, example in zip(all_axes, examples, strict=True):
    axes.imshow(example["X"].reshape(CROP, CROP), cmap="gray_r")
    axes.axis("off")
figure.suptitle("versions of one image")
plt.show()
