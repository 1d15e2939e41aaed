"""Files on disk to shuffled batches, as a user would write it with each library.

    python benchmarks/bench_end_to_end.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

The digits (64 features) and breast-cancer (30 features) data sets of scikit-learn, written to NPZ archives,
one a class and shard, each data set several times over so that an epoch has about 9,000 samples. An epoch
gives each sample once, from 16 archives at a time, in batches of 128 that a worker builds, and the
benchmark checks that (but for Grain, which repeats endlessly and mixes epochs). Shown are samples a second
over whole epochs after the first, CPU time of all processes, and how long the first batch took (imports not
counted). Each case runs in a fresh process; peers in environments of their own. Each data loader has one
worker, and is written as its documentation recommends: see the functions.

A second table is of three more data sets (FLAC files, JPEG files, many small NPZ archives) with one and two
workers. How files become samples is in end_to_end/data.py, each loader in end_to_end/loaders.py, and what is
measured in end_to_end/measuring.py. With --csv FILE it is written beside that, as FILE_files. The numeric
libraries of all loaders have one thread (OMP_NUM_THREADS=1), for the workers are what is compared.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import harness
import numpy as np
from end_to_end import measuring
from end_to_end.data import Archive

DATA = {"digits": 5, "breast cancer": 16}  # how often each is written
SHARDS, N_ACTIVE, BATCH = 8, 16, 128


def write_archives(name: str, folder: Path, copies: int) -> None:
    """Write one archive for each class, shard and copy."""
    from sklearn import datasets

    load = {"digits": datasets.load_digits, "breast cancer": datasets.load_breast_cancer}[name]
    x, y = load(return_X_y=True)
    x = x.astype(np.float32)
    for label in np.unique(y):
        shards = np.array_split(np.tile(np.flatnonzero(y == label), copies), SHARDS)
        for shard, rows in enumerate(shards):
            np.savez(folder / f"{label}-{shard}.npz", X=x[rows], y=y[rows])


def archives(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob("*.npz"))


# -- pescador --


def samples(path, rng):
    """Yield the samples of an archive in random order."""
    with np.load(path) as archive:
        x, y = archive["X"], archive["y"]
    for i in rng.permutation(len(x)):
        yield {"X": x[i], "y": y[i]}


def with_pescador(backend, folder):
    import pescador

    streams = [pescador.Streamer(samples, path, rng=pescador.RNG) for path in archives(folder)]
    mux = pescador.StochasticMux(streams, N_ACTIVE, rate=None, mode="exhaustive")
    batches = pescador.Streamer(pescador.buffer_stream, mux, BATCH, partial=True)
    if backend != "serial":
        batches = pescador.ParallelStreamer(batches, backend)
    while True:
        yield batches


def with_pescador_3(folder):
    import pescador

    rng = np.random.default_rng()
    streams = [pescador.Streamer(samples, path, rng) for path in archives(folder)]
    mux = pescador.StochasticMux(streams, N_ACTIVE, rate=None, mode="exhaustive")
    batches = pescador.ZMQStreamer(pescador.Streamer(pescador.buffer_stream, mux, BATCH, partial=True))
    while True:
        yield batches


# -- peers --


def mixed(folder, rng):
    """Yield the samples of all archives, 16 of them open at a time."""
    waiting = list(rng.permutation(archives(folder)))
    active: list = []
    while active or waiting:
        while waiting and len(active) < N_ACTIVE:
            active.append(samples(waiting.pop(), rng))
        place = rng.integers(len(active))
        try:
            yield next(active[place])
        except StopIteration:
            del active[place]


def with_torch(folder):
    import torch

    class Samples(torch.utils.data.IterableDataset):
        def __iter__(self):
            return mixed(folder, np.random.default_rng(torch.initial_seed() % (1 << 32)))

    loader = torch.utils.data.DataLoader(Samples(), BATCH, num_workers=1, persistent_workers=True)
    while True:
        yield loader


def shuffled_archive(path):
    import grain

    return grain.MapDataset.source(Archive(path)).shuffle(seed=0)


def in_memory(archive):
    import grain

    return archive.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


def with_grain(folder):
    import grain

    data = grain.MapDataset.source(archives(folder)).seed(0).shuffle().repeat()
    data = data.map(shuffled_archive).map(in_memory)
    data = grain.experimental.InterleaveIterDataset(data, cycle_length=N_ACTIVE).batch(BATCH)
    data = iter(data.mp_prefetch(grain.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=16)))
    while True:
        yield data


class Batches:
    """A source for SPDL, which keeps it in the worker and iterates over it once an epoch."""

    def __init__(self, folder):
        self.folder = folder

    def __iter__(self):
        batch: list = []
        for sample in mixed(self.folder, np.random.default_rng()):
            batch.append(sample)
            if len(batch) == BATCH:
                yield self.stacked(batch)
                batch = []
        if batch:
            yield self.stacked(batch)

    @staticmethod
    def stacked(batch):
        return {key: np.stack([sample[key] for sample in batch]) for key in ("X", "y")}


def with_spdl(folder):
    from spdl.pipeline import iterate_in_subprocess

    batches = iterate_in_subprocess(partial(Batches, folder), buffer_size=8)
    while True:
        yield batches


def with_tensorflow(folder):
    import tensorflow as tf

    def load(path):
        with np.load(path.decode()) as archive:
            return archive["X"], archive["y"]

    def archive(path):
        x, y = tf.numpy_function(load, [path], [tf.float32, tf.int64])
        return tf.data.Dataset.from_tensor_slices({"X": x, "y": y})

    paths = archives(folder)
    data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    data = data.interleave(archive, cycle_length=N_ACTIVE).shuffle(1000).batch(BATCH).prefetch(8)
    while True:
        yield data.as_numpy_iterator()


# Each gives, for epoch after epoch, an iterable of batches.
LOADERS: dict[str, tuple[Callable[[str], Iterator], str | None]] = {
    # name: (epochs, environment)
    "serial": (partial(with_pescador, "serial"), None),
    "shm": (partial(with_pescador, "shm"), None),
    "zmq": (partial(with_pescador, "zmq"), None),
    "thread": (partial(with_pescador, "thread"), None),
    "pescador 3.0.0": (with_pescador_3, "pescador 3.0.0"),
    "DataLoader": (with_torch, "torch"),
    "Grain": (with_grain, "grain"),
    "SPDL": (with_spdl, "spdl"),
    "tf.data": (with_tensorflow, "tensorflow"),
}
OURS = ("serial", "shm", "zmq", "thread")


def one_epoch(batches, labels, endless) -> float:
    """Use the batches of an epoch, check that they are all there; return when the first came."""
    first, seen, total = 0.0, 0, 0
    for batch in batches:
        first = first or time.perf_counter()
        seen += len(batch["X"])
        total += int(batch["y"].sum())
        if endless and seen >= len(labels):
            return first
    assert (seen, total) == (len(labels), labels.sum()), f"{seen} of {len(labels)} samples"
    return first


def measure_case(case: harness.Case) -> dict:
    if "workers" in case:
        return measuring.measure_case(case)
    labels = np.concatenate([np.load(path)["y"] for path in archives(case["folder"])])
    modules = {"torch": "torch", "tensorflow": "tensorflow", "grain": "grain", "spdl": "spdl.pipeline"}
    __import__(modules.get(case.get("environment", ""), "pescador"))
    epochs, endless = LOADERS[case["loader"]][0](case["folder"]), case["loader"] == "Grain"
    started = time.perf_counter()
    first = one_epoch(next(epochs), labels, endless) - started
    n, cpu, started = 0, harness.cpu_seconds(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < case["seconds"]:
        one_epoch(next(epochs), labels, endless)
        n += len(labels)
    return {"rate": n / elapsed, "cpu": (harness.cpu_seconds() - cpu) / n, "first": first}


def cases(arguments, root: str) -> list[harness.Case]:
    wanted = []
    for name, copies in DATA.items():
        folder = Path(root, name)
        folder.mkdir()
        write_archives(name, folder, 1 if arguments.quick else copies)
        for loader, (_, environment) in LOADERS.items():
            case = {"folder": str(folder), "loader": loader, "seconds": 0.1 if arguments.quick else 1}
            if environment:
                case["environment"] = environment
            if arguments.peers or not environment:
                wanted.append(case)
    return [case for case in wanted if not arguments.quick or case["loader"] in ("serial", "shm")]


COLUMNS = ["data", "loader", "samples/s", "min", "max", "CPU µs/sample", "first batch, ms", "note"]


def rows_of(case: harness.Case, results: list[dict] | str) -> list:
    head = [Path(case["folder"]).name, case["loader"]]
    if isinstance(results, str):
        return [*head, "", "", "", "", "", results]
    return [
        *head, *harness.three((result["rate"] for result in results), ".0f"),
        f"{1e6 * harness.median(result['cpu'] for result in results):.2f}",
        f"{1e3 * harness.median(result['first'] for result in results):.0f}", "",
    ]  # fmt: skip


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    os.environ["OMP_NUM_THREADS"] = "1"
    for title, parts, suffix in (
        ("From archives on disk to shuffled batches", (cases, rows_of, COLUMNS), ""),
        ("From files to batches", (measuring.cases, measuring.rows_of, measuring.COLUMNS), "_files"),
    ):
        make_cases, make_row, columns = parts
        with tempfile.TemporaryDirectory() as root:
            wanted = list(make_cases(arguments, root))
            results = harness.measure(__file__, wanted, repetitions)
        rows = [make_row(case, found) for case, found in zip(wanted, results, strict=True)]
        harness.show(title, columns, rows)
        if arguments.csv:
            path = arguments.csv.with_stem(arguments.csv.stem + suffix)
            harness.write_csv(path, columns, rows)


if __name__ == "__main__":
    main()
