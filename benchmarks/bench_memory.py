"""Whether memory stays flat.

    python benchmarks/bench_memory.py [--minutes 10] [--recipes 20000] [--backend shm] [--workers 2] [--quick]
                                      [--csv FILE]

A mux of 1,000 files, 100 active, rate 64, streams for some minutes from worker processes. After it, a chain
of recipes, each with a new array, a new function and a new list, is opened one by one. Once in a while it
prints the memory of all processes (PSS: shared pages are counted once), their number, and that of open file
descriptors and threads. The last lines of each table compare its last tenth with the one after the first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import psutil

import pescador

N_ROWS = 40
COLUMNS = ["second", "items", "memory, MB", "processes", "descriptors", "threads"]


def sample_file(path, rng):
    data = np.load(path)
    while True:
        yield {"x": data[rng.integers(len(data))]}


def usage():
    """Return MB of memory, processes, file descriptors and threads."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return (
        sum(process.memory_full_info().pss for process in processes) / 1e6,
        len(processes),
        sum(process.num_fds() for process in processes),
        sum(process.num_threads() for process in processes),
    )


def first(array, function, numbers):
    yield function(float(array[0])) + len(numbers)


def new_recipes(n):
    for i in range(n):
        array, numbers = np.full(20_000, i, float), list(range(i, i + 1000))
        yield pescador.Streamer(first, array, lambda value, i=i: value - i, numbers)


def follow(stream, is_time, n_rows):
    """Return the rows of a table: one whenever `is_time(row, item, second)` says that it is time for it."""
    print("second  {:>9}  {}  {}  {}  {}".format(*COLUMNS[1:]), flush=True)
    table = []
    started = time.monotonic()
    for n, _ in enumerate(stream, 1):
        second = time.monotonic() - started
        if is_time(len(table), n, second):
            table.append((second, n, *usage()))
            print("{:6.0f}  {:>9d}  {:10.1f}  {:9d}  {:11d}  {:7d}".format(*table[-1]), flush=True)
            if len(table) > n_rows:
                break
    for column, name in ((2, "memory"), (4, "descriptors")):
        early, late = (np.median([row[column] for row in rows]) for rows in (table[4:8], table[-4:]))
        print(f"{name} of the last tenth over the one after the first: {late / early:.3f}")
    return [[f"{second:.0f}", n, f"{memory:.1f}", *rest] for second, n, memory, *rest in table]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--recipes", type=int, default=20_000)
    parser.add_argument("--backend", default="shm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="write the first table to this file")
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    arguments = parser.parse_args()
    seconds, n_files, step = (2, 100, 100) if arguments.quick else (60 * arguments.minutes, 1000, 1000)
    n_recipes = 400 if arguments.quick else arguments.recipes

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.npy" for i in range(n_files)]
        for i, path in enumerate(files):
            np.save(path, np.full((64, 4096), i, dtype=np.float32))
        streams = [pescador.Streamer(sample_file, path, rng=pescador.RNG) for path in files]
        mux = pescador.StochasticMux(streams, n_active=n_files // 10, rate=64, random_state=0)
        with pescador.ParallelStreamer(mux, arguments.backend, arguments.workers) as stream:
            rows = follow(
                stream, lambda row, n, second: n % step == 0 and second > row * seconds / N_ROWS, N_ROWS
            )
        harness.write_csv(arguments.csv, COLUMNS, rows)

    print(f"\n{n_recipes} recipes")
    chain = pescador.ChainMux(pescador.Streamer(new_recipes, n_recipes))
    with pescador.ParallelStreamer(chain, arguments.backend, arguments.workers) as stream:
        follow(stream, lambda row, n, second: n >= row * n_recipes / N_ROWS, N_ROWS)  # noqa: ARG005


if __name__ == "__main__":
    main()
