"""What more workers bring.

    python benchmarks/bench_scaling.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

A StochasticMux of 64 streams, 16 active, over the backends thread, shm and zmq, against the same mux
in this process (serial), and beside PyTorch's DataLoader with the same work and workers (an iterable
data set, of which each worker takes every n-th stream), which is installed in an environment of its own.
Leaves: NumPy (sorting), Python (a loop), waiting (10 ms an item) and a slow open (200 ms, rate 64, with a
consumer that takes 2 ms for each item). Each case runs in a fresh process; the items of the first second are
not counted, in which the windows fill, nor those of the streams that are open first where opening is slow.
CPU seconds are those of all processes, for each second of the run. The rows "tiny" are what an item of 8
bytes costs the consumer itself: its own CPU time, with everything ready.

The rows "1 ms" are 8 streams whose items take a millisecond each, in a ShuffledMux ("shuffled"), a
RoundRobinMux ("in turn"), or a ShuffledMux of NumPy work ("NumPy"). In the row "balanced", the consumer of
one worker computes for as long as an item takes to make: an item that came late would show there. The rows
"short" are 100 streams of 30,000, which give 8 tiny items each: what it costs to open one.
"""

from __future__ import annotations

import itertools
import os
import time

import harness

N_STREAMS, N_ACTIVE = 64, 16

BACKENDS = ("serial", "thread", "shm", "zmq", "DataLoader")
WORK = ("numpy", "python", "waiting", "slow open", "free open", "tiny")
MILLISECOND = ("1 ms shuffled", "1 ms in turn", "1 ms NumPy", "balanced")
SHORT = "short"


def compute():
    """Compute in Python for about a millisecond."""
    total = 0
    for i in range(20_000):
        total += i * i % 7
    return total


def leaf(work, rng):
    import numpy as np

    if work == "1 ms NumPy":
        data = rng.random(28_000)
        while True:
            yield {"x": np.sort(data)[:10]}
    if work in MILLISECOND:
        while True:
            yield {"y": compute()}
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


def short(number):
    import numpy as np

    data = np.array([number])
    while True:
        yield {"x": data}


def rate(case):
    """Return after how many samples, on average, a stream is replaced."""
    return 64 if case["work"].endswith("open") else None


def stream_of(case):
    import pescador

    work = case["work"]
    if work == SHORT:
        streams = [pescador.Streamer(short, i) for i in range(30_000)]
        mux = pescador.StochasticMux(streams, 100, 8, random_state=0)
    else:
        n_streams = 8 if work in MILLISECOND else N_STREAMS
        streams = [pescador.Streamer(leaf, work, rng=pescador.RNG) for _ in range(n_streams)]
        if work == "1 ms in turn":
            mux = pescador.RoundRobinMux(streams, "cycle")
        elif work in MILLISECOND:
            mux = pescador.ShuffledMux(streams, random_state=0)
        else:
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
        for _ in range(1000 if case["work"] in ("tiny", SHORT) else 1):
            next(items)
            n += 1
            if pause:
                time.sleep(pause)
            elif case["work"] == "balanced":
                compute()
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
    if not arguments.quick:
        for work in (*MILLISECOND, SHORT):
            for backend in ("serial", "thread" if work == "1 ms NumPy" else "shm", "zmq"):
                workers = 1 if backend == "serial" or work == "balanced" else 2
                yield {"work": work, "backend": backend, "workers": workers, "seconds": 2 * seconds}


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


BOUNDS = {  # how many times as fast as serial
    ("1 ms shuffled", "shm"): 1.9,
    ("1 ms shuffled", "zmq"): 1.85,
    ("1 ms in turn", "shm"): 1.9,
    ("1 ms in turn", "zmq"): 1.85,
    ("1 ms NumPy", "thread"): 1.85,
}


def bounds_of(cases, results):
    found = {
        (case["work"], case["backend"]): {name: harness.median(run[name] for run in runs) for name in runs[0]}
        for case, runs in zip(cases, results, strict=True)
        if not isinstance(runs, str) and (case["work"] in MILLISECOND or case["work"] == SHORT)
    }
    for (work, backend), bound in BOUNDS.items():
        if (work, backend) in found:
            value = found[work, backend]["rate"] / found[work, "serial"]["rate"]
            yield harness.against(f"2 workers over serial, {work}, {backend}", value, bound)
    for backend in ("serial", "shm", "zmq"):
        if (SHORT, backend) in found:
            run = found[SHORT, backend]
            value = 8e6 * run["cpu"] / run["rate"]
            row = harness.against(f"CPU of an activation and 8 items, {backend}, µs", value, 40, False, ".0f")
            yield row if backend != "serial" else [*row[:2], "", ""]


def main():
    arguments = harness.options(__doc__, measure_case)
    wanted = list(cases(arguments))
    results = harness.measure(__file__, wanted, arguments.repetitions or (1 if arguments.quick else 3))
    rows = list(rows_of(wanted, results))
    harness.show("What more workers bring", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)
    harness.show_bounds(list(bounds_of(wanted, results)), arguments.csv)


if __name__ == "__main__":
    main()
