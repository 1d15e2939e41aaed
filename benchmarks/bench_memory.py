"""Whether memory stays flat.

    python benchmarks/bench_memory.py [--minutes 10] [--backend shm] [--workers 2] [--quick] [--csv FILE]

A mux of 1,000 files, 100 active, rate 64, streams for some minutes from worker processes. Once in a
while it prints the memory of all processes (PSS: shared pages are counted once), their number, and
that of open file descriptors and threads. The last line compares the last tenth of the run with the one after
the first tenth.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backend", default="shm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    arguments = parser.parse_args()
    seconds, n_files, step = (2, 100, 100) if arguments.quick else (60 * arguments.minutes, 1000, 1000)

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.npy" for i in range(n_files)]
        for i, path in enumerate(files):
            np.save(path, np.full((64, 4096), i, dtype=np.float32))
        streams = [pescador.Streamer(sample_file, path, rng=pescador.RNG) for path in files]
        mux = pescador.StochasticMux(streams, n_active=n_files // 10, rate=64, random_state=0)
        print("second  {:>9}  {}  {}  {}  {}".format(*COLUMNS[1:]), flush=True)
        table = []
        with pescador.ParallelStreamer(mux, arguments.backend, arguments.workers) as stream:
            started = time.monotonic()
            for n, _ in enumerate(stream, 1):
                if n % step == 0 and time.monotonic() - started > len(table) * seconds / 40:
                    table.append((time.monotonic() - started, n, *usage()))
                    print("{:6.0f}  {:>9d}  {:10.1f}  {:9d}  {:11d}  {:7d}".format(*table[-1]), flush=True)
                    if len(table) > 40:
                        break
        early = np.median([row[2] for row in table[4:8]])
        late = np.median([row[2] for row in table[-4:]])
        rows = [[f"{seconds:.0f}", n, f"{memory:.1f}", *rest] for seconds, n, memory, *rest in table]
        harness.write_csv(arguments.csv, COLUMNS, rows)
        print(f"memory of the last tenth over that after the first: {late / early:.3f}")


if __name__ == "__main__":
    main()
