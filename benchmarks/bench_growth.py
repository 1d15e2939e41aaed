"""How cost grows with the number of streams, and with that of workers.

    python benchmarks/bench_growth.py [--quick] [--csv FILE] [--repetitions 3]

*Streams*: a StochasticMux of 10,000 to 10,000,000 streamers, 100 active, rate 8, in this process: bytes and
seconds for each streamer, milliseconds to the first sample, microseconds for each of the next 100,000.

*Workers*: a ShuffledMux of as many streams as there are workers, whose generators wait for 10 ms before each
item: seconds to the first item, items a second, the consumer's and everybody's CPU time for an item, memory
(PSS) and descriptors of the consumer for each worker, and the CPU time of all when nobody asks for items.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import harness

STREAMS = (10**4, 10**6, 10**7)
WORKERS = (1, 8, 64, 256)
SETTLE_SECONDS, IDLE_SECONDS = 1.0, 3.0
STREAM_COLUMNS = ["streamers", "bytes each", "µs each", "first sample, ms", "µs/sample", "lowest", "highest"]
WORKER_COLUMNS = [
    "backend", "workers", "first item, s", "items/s", "lowest", "highest", "consumer CPU, µs/item",
    "all CPU, µs/item", "MB each", "descriptors each", "idle, % of a core",
]  # fmt: skip


def numbers(i: int) -> Iterator[int]:
    while True:
        yield i


def waiting() -> Iterator[int]:
    while True:
        time.sleep(0.01)
        yield 0


def memory() -> float:
    """Return the bytes of this process and its descendants; shared pages are counted once."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes)


def seconds_of_workers() -> float:
    """Return the CPU time of the descendants, in units of less than a tick of the clock."""
    import psutil

    children = psutil.Process().children(recursive=True)
    tasks = [task for child in children for task in Path(f"/proc/{child.pid}/task").iterdir()]
    return 1e-9 * sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def measure_streams(n: int) -> dict:
    import pescador

    before, started = memory(), time.perf_counter()
    streams = [pescador.Streamer(numbers, i) for i in range(n)]
    samples = iter(pescador.StochasticMux(streams, 100, 8, random_state=0))
    made = time.perf_counter()
    next(samples)
    first = time.perf_counter()
    each = (memory() - before) / n
    began = time.perf_counter()
    for _ in range(10**5):
        next(samples)
    ended = time.perf_counter()
    return {
        "bytes": each,
        "each": 1e6 * (made - started) / n,
        "first": 1e3 * (first - made),
        "sample": 1e6 * (ended - began) / 10**5,
    }


def measure_workers(backend: str, n: int) -> dict:
    import psutil

    import pescador

    descriptors, bytes_before = psutil.Process().num_fds(), memory()
    mux = pescador.ShuffledMux([pescador.Streamer(waiting) for _ in range(n)], random_state=0)
    with pescador.ParallelStreamer(mux, backend, n, prefetch=16 * n) as stream:
        started = time.perf_counter()
        items = iter(stream)
        next(items)
        first = time.perf_counter() - started
        for _ in range(20 * n):
            next(items)
        cpu, own, n_items, started = harness.cpu_seconds(), time.process_time(), 100 * n, time.perf_counter()
        for _ in range(n_items):
            next(items)
        seconds = time.perf_counter() - started
        cpu, own = harness.cpu_seconds() - cpu, time.process_time() - own
        found = {
            "first": first,
            "rate": n_items / seconds,
            "own": 1e6 * own / n_items,
            "all": 1e6 * cpu / n_items,
            "bytes": (memory() - bytes_before) / n,
            "descriptors": (psutil.Process().num_fds() - descriptors) / n,
        }
        time.sleep(SETTLE_SECONDS)  # the windows fill
        cpu, own = seconds_of_workers(), time.process_time()
        time.sleep(IDLE_SECONDS)
        own = time.process_time() - own
        cpu = seconds_of_workers() - cpu
        return {**found, "idle": 100 * (cpu + own) / IDLE_SECONDS}


def measure_case(case: harness.Case) -> dict:
    if "streams" in case:
        return measure_streams(case["streams"])
    return measure_workers(case["backend"], case["workers"])


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    cases = [{"streams": n} for n in STREAMS[: 1 if arguments.quick else None]]
    results = harness.measure(__file__, cases, repetitions)

    def middle(name: str, found: list[dict], form: str) -> str:
        return format(harness.median(result[name] for result in found), form)

    rows = [
        [
            f"{case['streams']:,}",
            middle("bytes", found, ".0f"),
            middle("each", found, ".2f"),
            middle("first", found, ".2g"),
            *harness.three((result["sample"] for result in found), ".2f"),
        ]
        for case, found in zip(cases, results, strict=True)
    ]
    harness.show("How cost grows with streams", STREAM_COLUMNS, rows)
    harness.write_csv(arguments.csv, STREAM_COLUMNS, rows)

    cases = [
        {"backend": backend, "workers": n}
        for backend in ("shm", "zmq")
        for n in WORKERS[: 2 if arguments.quick else None]
    ]
    results = harness.measure(__file__, cases, repetitions)
    rows = [
        [
            case["backend"],
            case["workers"],
            middle("first", found, ".2f"),
            *harness.three((result["rate"] for result in found), ".0f"),
            *(middle(name, found, ".0f") for name in ("own", "all")),
            format(harness.median(result["bytes"] for result in found) / 1e6, ".1f"),
            middle("descriptors", found, ".1f"),
            middle("idle", found, ".2f"),
        ]
        for case, found in zip(cases, results, strict=True)
    ]
    harness.show("How cost grows with workers", WORKER_COLUMNS, rows)
    if arguments.csv:
        path = arguments.csv.with_stem(arguments.csv.stem + "_workers")
        harness.write_csv(path, WORKER_COLUMNS, rows)


if __name__ == "__main__":
    main()
