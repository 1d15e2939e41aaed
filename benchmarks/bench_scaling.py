"""What more workers bring.

    python benchmarks/bench_scaling.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

A StochasticMux of 64 streams, 16 active, over the backends thread, shm and zmq, against the same mux
in this process (serial), and beside PyTorch's DataLoader with the same work and workers (an iterable
data set, of which each worker takes every n-th stream), which is installed in an environment of its own.
Leaves: NumPy (sorting), Python (a loop), waiting (10 ms an item) and a slow open (200 ms, rate 64, with a
consumer that takes 2 ms for each item). Each case runs in a fresh process; the items of the first second are
not counted, in which the windows fill, nor those of the streams that are open first where opening is slow.
CPU seconds are those of all processes, for each second of the run. The last rows are what an item of 8 bytes
costs the consumer itself: its own CPU time, with everything ready.
"""

from __future__ import annotations

import itertools
import os
import time

import harness

N_STREAMS, N_ACTIVE = 64, 16

BACKENDS = ("serial", "thread", "shm", "zmq", "DataLoader")
WORK = ("numpy", "python", "waiting", "slow open", "free open", "tiny")


def leaf(work, rng):
    import numpy as np

    if work == "slow open":
        time.sleep(0.2)
    data = rng.random(120_000)
    while True:
        if work == "numpy":
            yield {"x": np.sort(data)[:1000]}
        elif work == "python":
            total = 0
            for i in range(120_000):
                total += i * i % 7
            yield {"x": data[:1000], "y": total}
        elif work == "waiting":
            time.sleep(0.01)
            yield {"x": data[:1000]}
        elif work == "tiny":
            yield {"x": data[:1]}
        else:
            yield {"x": data[:1000]}


def rate(case):
    """Return after how many samples, on average, a stream is replaced."""
    return 64 if case["work"].endswith("open") else None


def stream_of(case):
    import pescador

    streams = [pescador.Streamer(leaf, case["work"], rng=pescador.RNG) for _ in range(N_STREAMS)]
    mux = pescador.StochasticMux(streams, N_ACTIVE, rate(case), random_state=0)
    if case["backend"] == "serial":
        return mux
    return pescador.ParallelStreamer(mux, case["backend"], case["workers"])


def torch_items(case):
    import numpy as np
    import torch

    def stream(i):
        for k in itertools.count():
            yield from itertools.islice(leaf(case["work"], np.random.default_rng([i, k])), rate(case))

    class Streams(torch.utils.data.IterableDataset):
        def __iter__(self):
            info = torch.utils.data.get_worker_info()
            mine = range(info.id if info else 0, N_ACTIVE, info.num_workers if info else 1)
            iterators = [stream(i) for i in mine]
            while True:
                for iterator in iterators:
                    yield next(iterator)

    return torch.utils.data.DataLoader(Streams(), batch_size=None, num_workers=case["workers"])


def measure_case(case):
    items = iter(torch_items(case) if case["backend"] == "DataLoader" else stream_of(case))
    pause = 0.002 if case["work"].endswith("open") else 0
    next(items)  # when the workers have started
    n, started = 0, time.perf_counter()
    # from then on streams are replaced at an even rate, in the long run as in this one
    first = 64 * N_ACTIVE if case["work"] == "slow open" else 0
    while n < first or time.perf_counter() - started < case["seconds"] * 2 / 3:
        next(items)
        n += 1
    n, cpu, own, started = 0, harness.cpu_seconds(), time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < case["seconds"]:
        for _ in range(1000 if case["work"] == "tiny" else 1):
            next(items)
            n += 1
            if pause:
                time.sleep(pause)
    result = {
        "rate": n / elapsed,
        "cpu": (harness.cpu_seconds() - cpu) / elapsed,
        "own": (time.process_time() - own) / n,
    }
    getattr(items, "close", lambda: None)()
    return result


def cases(arguments):
    cores = os.cpu_count() or 1
    seconds = 0.3 if arguments.quick else 1.5
    counts = {work: sorted({1, 2, cores}) for work in WORK}
    counts["waiting"] = [1, 4, 16]
    counts["slow open"] = counts["free open"] = [4]
    counts["tiny"] = [2]
    for work in ("numpy", "waiting") if arguments.quick else WORK:
        for backend in ("serial", "shm") if arguments.quick else BACKENDS:
            for workers in [1] if backend == "serial" else counts[work]:
                case = {"work": work, "backend": backend, "workers": workers, "seconds": seconds}
                if work.endswith("open"):
                    case["seconds"] *= 2  # a stream opens once in a fifth of a second
                if backend == "DataLoader":
                    case["environment"] = "torch"
                if arguments.peers or "environment" not in case:
                    yield case


COLUMNS = ["work", "backend", "workers", "items/s", "min", "max", "times serial", "efficiency",
           "CPU s/s", "consumer CPU, µs/item", "note"]  # fmt: skip


def rows_of(cases, results):
    serial = {}
    for case, runs in zip(cases, results, strict=True):
        work, backend, workers = case["work"], case["backend"], case["workers"]
        head = [work, backend, workers]
        if isinstance(runs, str):
            yield [*head, "", "", "", "", "", "", "", runs]
            continue
        rates = [run["rate"] for run in runs]
        gain = harness.median(rates) / serial.setdefault(work, harness.median(rates))
        parallelism = workers if work in ("waiting", "slow open") else min(workers, os.cpu_count() or 1)
        yield [
            *head, *harness.three(rates, ".0f"), f"{gain:.2f}", f"{gain / parallelism:.0%}",
            f"{harness.median(run['cpu'] for run in runs):.2f}",
            f"{1e6 * harness.median(run['own'] for run in runs):.2f}", "",
        ]  # fmt: skip


def main():
    arguments = harness.options(__doc__, measure_case)
    wanted = list(cases(arguments))
    results = harness.measure(__file__, wanted, arguments.repetitions or (1 if arguments.quick else 3))
    rows = list(rows_of(wanted, results))
    harness.show("What more workers bring", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
