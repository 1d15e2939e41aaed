"""Each data set with each library, as its users would write it: endless batches, made by `n` workers.

Of ``sounds`` and ``images``, every sample is a new opening of a random file, in all libraries. Of ``arrays``,
an opened file gives 8 rows (on average, where the library can draw that), and the rows of 100 files at a time
are mixed; `mixed` does that where the library has nothing of its own for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np

from .data import CROP, SAMPLE, SHARDS, SUFFIX, Archive, Item, files, rows

BATCH, N_ACTIVE, PER_FILE = 64, 100, 8


def stacked(items: list[Item]) -> Item:
    return {key: np.stack([item[key] for item in items]) for key in items[0]}


def shuffled(paths: list[str]) -> Iterator[str]:
    rng = np.random.default_rng()
    while True:
        yield from rng.permutation(paths).tolist()


def some_rows(path) -> list[Item]:
    return list(islice(rows(path, np.random.default_rng()), PER_FILE))


def mixed(paths: list[str], rng: np.random.Generator) -> Iterator[Item]:
    """Yield rows from 100 open files at a time; each is replaced when it has given its share."""
    waiting = shuffled(paths)
    active = [islice(rows(next(waiting), rng), rng.poisson(PER_FILE - 1) + 1) for _ in range(N_ACTIVE)]
    while True:
        for place in rng.integers(N_ACTIVE, size=1000).tolist():
            while (item := next(active[place], None)) is None:
                active[place] = islice(rows(next(waiting), rng), rng.poisson(PER_FILE - 1) + 1)
            yield item


class Sampled:
    """A function of a path as one of a path alone, with a generator of random numbers for each process."""

    def __init__(self, name: str) -> None:
        self.name, self.rng = name, None

    def __call__(self, file) -> Item:
        if self.rng is None:
            self.rng = np.random.default_rng()
        return SAMPLE[self.name](file, self.rng)


class Batch(Sampled):
    """A function of the paths of a batch."""

    def __call__(self, paths) -> Item:
        return stacked([super(Batch, self).__call__(path) for path in paths])


# -- pescador --


def samples(name, path, rng):
    """Yield samples of a file, without end."""
    while True:
        yield SAMPLE[name](path, rng)


def with_pescador(backend: str, name: str, folder: str, n: int):
    import pescador

    source = (pescador.rows,) if name == "arrays" else (samples, name)
    streams = [pescador.Streamer(*source, path, rng=pescador.RNG) for path in files(folder, name)]
    shares = [pescador.StochasticMux(streams[i::n], N_ACTIVE // n, PER_FILE) for i in range(n)]
    batches = [pescador.Streamer(pescador.buffer_stream, share, BATCH) for share in shares]
    if backend == "serial":
        return batches[0]
    return pescador.ParallelStreamer(pescador.RoundRobinMux(batches), backend, n)


# -- peers --


def with_torch(name: str, folder: str, n: int):
    from torch.utils import data

    class Files(data.Dataset):
        def __init__(self):
            self.paths, self.sample = files(folder, name), Sampled(name)

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, i):
            return self.sample(self.paths[i])

    class Rows(data.IterableDataset):
        def __iter__(self):
            paths = files(folder, name)[data.get_worker_info().id :: n]
            return mixed(paths, np.random.default_rng())

    options = {"num_workers": n, "prefetch_factor": 4, "persistent_workers": True}
    if name == "arrays":
        return data.DataLoader(Rows(), BATCH, **options)
    dataset = Files()
    sampler = data.RandomSampler(dataset, replacement=True, num_samples=BATCH * 100_000)
    return data.DataLoader(dataset, BATCH, sampler=sampler, **options)


def with_nodes(name: str, folder: str, n: int):
    from torchdata import nodes

    class Mix(nodes.BaseNode):
        """Draws from a buffer of as many rows as 100 files give."""

        def __init__(self, source):
            super().__init__()
            self.source = source

        def reset(self, initial_state=None):
            super().reset(initial_state)
            self.source.reset()
            self.rng = np.random.default_rng()
            self.kept = [next(self.source) for _ in range(N_ACTIVE * PER_FILE)]

        def next(self):
            place = int(self.rng.integers(len(self.kept)))
            item, self.kept[place] = self.kept[place], next(self.source)
            return item

        def get_state(self):
            return {}

    options = {"num_workers": n, "in_order": False}  # threads; of processes, its default way to fork may hang
    node = nodes.IterableWrapper(shuffled(files(folder, name)))
    if name == "arrays":
        node = Mix(nodes.Unbatcher(nodes.ParallelMapper(node, some_rows, **options)))
        node = nodes.Mapper(nodes.Batcher(node, BATCH), stacked)
    else:
        node = nodes.ParallelMapper(nodes.Batcher(node, BATCH), Batch(name), **options)
    return nodes.Loader(nodes.Prefetcher(node, 4))


def with_grain(name: str, folder: str, n: int):
    import grain

    in_line = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)

    def opened(path):
        return grain.MapDataset.source(Archive(path)).shuffle(seed=0)[:PER_FILE].to_iter_dataset(in_line)

    data = grain.MapDataset.source(files(folder, name)).seed(0).shuffle().repeat()
    if name == "arrays":
        data = grain.experimental.InterleaveIterDataset(data.map(opened), cycle_length=N_ACTIVE)
    else:
        data = data.random_map(SAMPLE[name]).to_iter_dataset(in_line)
    return data.batch(BATCH).mp_prefetch(grain.MultiprocessingOptions(n, per_worker_buffer_size=4))


def with_spdl(subprocess: bool, name: str, folder: str, n: int):
    from spdl.pipeline import PipelineBuilder, run_pipeline_in_subprocess

    pipeline = PipelineBuilder().add_source(Shuffled(folder, name))
    if name == "arrays":
        pipeline.pipe(some_rows, concurrency=n).aggregate(N_ACTIVE).pipe(mixed_batches)
    else:
        pipeline.aggregate(BATCH).pipe(Batch(name), concurrency=n)
    pipeline.add_sink(4)
    if subprocess:
        return run_pipeline_in_subprocess(pipeline.get_config(), num_threads=n)
    return pipeline.build(num_threads=n)


class Shuffled:
    """A source for SPDL, which may send it to a subprocess."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name

    def __iter__(self) -> Iterator[str]:
        return shuffled(files(self.folder, self.name))


def mixed_batches(opened: list[list[Item]]) -> Iterator[Item]:
    """Yield the rows of 100 files in random order, in batches."""
    items = [item for of_file in opened for item in of_file]
    order = np.random.default_rng().permutation(len(items)).tolist()
    for start in range(0, len(order) - BATCH + 1, BATCH):
        yield stacked([items[i] for i in order[start : start + BATCH]])


def with_tensorflow(native: bool, name: str, folder: str, n: int):
    import tensorflow as tf

    sample = Sampled(name)
    shape = {"sounds": (83, 64), "images": (CROP, CROP, 3), "arrays": (PER_FILE, 64)}[name]
    dtype = tf.uint8 if name == "images" else tf.float32

    def by_numpy(path):
        x = tf.numpy_function(lambda path: sample(path.decode())["X"], [path], dtype)
        return {"X": tf.ensure_shape(x, shape)}

    def by_tensorflow(path):  # as its own guide has it
        image = tf.io.decode_jpeg(tf.io.read_file(path), 3)
        return {"X": tf.image.random_flip_left_right(tf.image.random_crop(image, shape))}

    def rows_of(path):
        def load(path):
            found = stacked(some_rows(path.decode()))
            return found["X"], found["y"]

        x, y = tf.numpy_function(load, [path], [dtype, tf.int64])
        return tf.data.Dataset.from_tensor_slices({"X": tf.ensure_shape(x, shape), "y": y})

    paths = files(folder, name)
    data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    if name == "arrays":
        data = data.interleave(rows_of, N_ACTIVE, num_parallel_calls=n, deterministic=False)
        data = data.shuffle(N_ACTIVE * PER_FILE)
    else:
        make = by_tensorflow if native else by_numpy
        data = data.map(make, num_parallel_calls=n, deterministic=False)
    options = tf.data.Options()
    options.threading.private_threadpool_size = n
    return data.batch(BATCH).prefetch(4).with_options(options).as_numpy_iterator()


def with_webdataset(name: str, folder: str, n: int):
    import webdataset as wds

    key, sample = SUFFIX[name], Sampled(name)
    shards = [f"{folder}/{i}.tar" for i in range(SHARDS)]
    data = wds.WebDataset(shards, resampled=True)
    if name == "arrays":
        data = data.shuffle(N_ACTIVE).compose(partial(opened_rows, key)).shuffle(N_ACTIVE * PER_FILE)
    else:
        data = data.shuffle(N_ACTIVE).map(lambda item: sample(io.BytesIO(item[key])))
    data = data.batched(BATCH, collation_fn=stacked)
    return wds.WebLoader(data, batch_size=None, num_workers=n, prefetch_factor=4, persistent_workers=True)


def opened_rows(key: str, items: Iterator[dict]) -> Iterator[Item]:
    for item in items:
        yield from some_rows(io.BytesIO(item[key]))


# name: (endless batches, environment, module to import before the clock starts)
LOADERS: dict[str, tuple[Callable, str | None, str]] = {
    "serial": (partial(with_pescador, "serial"), None, "pescador"),
    "shm": (partial(with_pescador, "shm"), None, "pescador"),
    "thread": (partial(with_pescador, "thread"), None, "pescador"),
    "DataLoader": (with_torch, "torch", "torch"),
    "torchdata": (with_nodes, "torch", "torchdata.nodes"),
    "Grain": (with_grain, "grain", "grain"),
    "SPDL": (partial(with_spdl, False), "spdl", "spdl.pipeline"),
    "SPDL, subprocess": (partial(with_spdl, True), "spdl", "spdl.pipeline"),
    "tf.data": (partial(with_tensorflow, False), "tensorflow", "tensorflow"),
    "tf.data, its own decoder": (partial(with_tensorflow, True), "tensorflow", "tensorflow"),
    "WebDataset": (with_webdataset, "torch", "webdataset"),
}
