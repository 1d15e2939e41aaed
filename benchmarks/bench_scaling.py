"""What more workers bring.

    python benchmarks/bench_scaling.py [--quick] [--csv FILE] [--no-peer]

A StochasticMux of 64 streams, 16 active, over the backends thread, shm and zmq, against the same mux
in this process (serial), and beside PyTorch's DataLoader with the same work and workers (an iterable
data set, of which each worker takes every n-th stream), which is installed in an environment of its own.
Leaves: NumPy (sorting), Python (a loop), waiting (10 ms an item) and a slow open (200 ms, rate 64, with a
consumer that takes 2 ms for each item). Each case runs in a fresh process, and the items of the first
second are not counted. CPU seconds are those of all processes, for each second of the run. The last
rows are what an item of 8 bytes costs the consumer itself: its own CPU time, with everything ready.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

N_STREAMS, N_ACTIVE = 64, 16

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


def cpu_seconds():
    """CPU time of this process and its descendants so far."""
    import psutil

    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def stream_of(case):
    import pescador

    rate = {"slow open": 64, "free open": 64}.get(case["work"])
    streams = [pescador.Streamer(leaf, case["work"], rng=pescador.RNG) for _ in range(N_STREAMS)]
    mux = pescador.StochasticMux(streams, N_ACTIVE, rate, random_state=0)
    if case["backend"] == "serial":
        return mux
    return pescador.ParallelStreamer(mux, case["backend"], case["workers"])


def torch_items(case):
    import numpy as np
    import torch

    class Streams(torch.utils.data.IterableDataset):
        def __iter__(self):
            info = torch.utils.data.get_worker_info()
            mine = range(info.id if info else 0, N_ACTIVE, info.num_workers if info else 1)
            iterators = [leaf(case["work"], np.random.default_rng(i)) for i in mine]
            while True:
                for iterator in iterators:
                    yield next(iterator)

    return torch.utils.data.DataLoader(Streams(), batch_size=None, num_workers=case["workers"])


def measure_case(case):
    items = iter(torch_items(case) if case["backend"] == "torch" else stream_of(case))
    pause = 0.002 if case["work"].endswith("open") else 0
    started = time.perf_counter()
    while time.perf_counter() - started < case["seconds"] / 3:  # start, and first activations
        next(items)
    n, cpu, own, started = 0, cpu_seconds(), time.process_time(), time.perf_counter()
    while (elapsed := time.perf_counter() - started) < case["seconds"]:
        for _ in range(1000 if case["work"] == "tiny" else 1):
            next(items)
            n += 1
            if pause:
                time.sleep(pause)
    result = {
        "rate": n / elapsed,
        "cpu": (cpu_seconds() - cpu) / elapsed,
        "own": (time.process_time() - own) / n,
    }
    getattr(items, "close", lambda: None)()
    return result


def main():
    import harness

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few cases, short runs")
    parser.add_argument("--csv", help="write the table to this file")
    parser.add_argument("--no-peer", action="store_true", help="do not install and measure PyTorch")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure_case(json.loads(arguments.case))))
        return

    cores = os.cpu_count() or 1
    seconds, repetitions = (0.5, 1) if arguments.quick else (3, 3)
    peer = None
    if not (arguments.no_peer or arguments.quick):
        peer = harness.environment("torch", "torch==2.13.0", "numpy", "psutil")
    counts = {work: sorted({1, 2, cores}) for work in WORK}
    counts["waiting"] = [1, 4, 16]
    counts["slow open"] = counts["free open"] = [4]
    counts["tiny"] = [2]
    backends = ["shm"] if arguments.quick else ["thread", "shm", "zmq"] + (["torch"] if peer else [])
    columns = ["work", "backend", "workers", "items/s", "min", "max", "times serial", "efficiency",
               "CPU s/s", "consumer CPU, µs/item"]  # fmt: skip
    rows = []
    for work in WORK[:3] if arguments.quick else WORK:
        serial = 0.0
        for backend in ["serial", *backends]:
            for workers in [1] if backend == "serial" else counts[work]:
                case = {"work": work, "backend": backend, "workers": workers, "seconds": seconds}
                python = peer if backend == "torch" else sys.executable
                runs = [
                    harness.measure(
                        str(python), __file__, "--case", json.dumps(case), ours=backend != "torch"
                    )
                    for _ in range(repetitions)
                ]
                rates = [run["rate"] for run in runs]
                rate = harness.median(rates)
                serial = serial or rate
                parallelism = workers if work in ("waiting", "slow open") else min(workers, cores)
                rows.append(
                    [work, backend, workers, f"{rate:.0f}", f"{min(rates):.0f}", f"{max(rates):.0f}",
                     f"{rate / serial:.2f}", f"{rate / serial / parallelism:.0%}",
                     f"{harness.median(run['cpu'] for run in runs):.2f}",
                     f"{1e6 * harness.median(run['own'] for run in runs):.2f}"]
                )  # fmt: skip
                print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    harness.show("What more workers bring", columns, rows)
    harness.write_csv(arguments.csv, columns, rows)


if __name__ == "__main__":
    main()
