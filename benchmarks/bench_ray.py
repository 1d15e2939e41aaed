"""What it costs to bring items from a worker on Ray to the consumer, on this machine.

    python benchmarks/bench_ray.py [--quick] [--csv FILE] [--repetitions 3]

One worker makes dicts of one float32 array of 100 B to 16 MiB, a new one for each item, and the consumer
takes them for some seconds: from a ParallelStreamer on Ray, on shm and on zmq, and from a *plain* Ray
generator, a method with ``num_returns="streaming"`` that yields the same items, of which each is taken
with ``ray.get``. Each is measured in a process of its own, with a runtime of its own. Without Ray, its
rows are left out.

Shown besides: milliseconds to the first item of the first epoch (with the start of the workers, without
that of the runtime) and of the second, and items a second of a StochasticMux whose streams give 16 items
each.
"""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Iterator

import harness
import numpy as np

SIZES = {"100 B": 100, "64 kB": 1 << 16, "1 MB": 1 << 20, "16 MB": 1 << 24}
FIRST, SHORT = "first item", "streams of 16 items"
PLAIN = "plain Ray generator"
STORE_BYTES = 400 * 10**6
RATIOS = {PLAIN: (60, 6, 1.5, 0.8), "zmq": (0.6, 0.6, 0.6, 0.6)}

COLUMNS = ["item", "tool", "items/s", "lowest", "highest", "MB/s", "ms"]
Item = dict[str, np.ndarray]


def items(n_bytes: int) -> Iterator[Item]:
    x = np.ones(n_bytes // 4, np.float32)
    while True:
        yield {"x": x.copy()}


def start_runtime() -> None:
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=STORE_BYTES,
    )  # fmt: skip


def plain(n_bytes: int) -> Iterator[Item]:
    import ray

    @ray.remote
    class Worker:
        def run(self) -> Iterator[Item]:
            yield from items(n_bytes)

    worker = Worker.remote()
    # Without a bound it would fill the object store.
    options = {"num_returns": "streaming", "_generator_backpressure_num_objects": 16}
    for reference in worker.run.options(**options).remote():
        yield ray.get(reference)


def ours(tool: str, n_bytes: int) -> Iterator[Item]:
    import pescador

    with pescador.ParallelStreamer(pescador.Streamer(items, n_bytes), tool) as stream:
        yield from stream


def mux(n_active: int = 4) -> object:
    import pescador

    streams = [pescador.Streamer(items, 1000) for _ in range(100)]
    return pescador.StochasticMux(streams, n_active, 16, dist="constant", random_state=0)


def rate(stream: Iterator[object], seconds: float) -> float:
    for _ in itertools.islice(stream, 20):  # it warms up
        pass
    n, step = 0, 1
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        for _ in itertools.islice(stream, step):
            n += 1
        step = min(1000, 2 * step) if passed < seconds / 10 else step
    return n / (time.perf_counter() - started)


def measure_case(case: harness.Case) -> dict:
    import pescador

    tool, item = case["tool"], case["item"]
    if tool in ("ray", PLAIN):
        start_runtime()
    if item == FIRST:
        with pescador.ParallelStreamer(pescador.Streamer(items, 100), tool) as stream:
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                iterator = iter(stream)
                next(iterator)
                seconds.append(time.perf_counter() - started)
                iterator.close()
        return {"ms": [1e3 * one for one in seconds]}
    if item == SHORT:
        with pescador.ParallelStreamer(mux(), tool, n_workers=2) as stream:
            return {"rate": rate(iter(stream), case["seconds"])}
    stream = plain(SIZES[item]) if tool == PLAIN else ours(tool, SIZES[item])
    found = rate(stream, case["seconds"])
    stream.close()
    return {"rate": found}


def cases(quick: bool) -> list[harness.Case]:
    tools = ["shm", "zmq"]
    if importlib.util.find_spec("ray") is not None:
        tools += ["ray", PLAIN]
    seconds = 0.2 if quick else 3.0
    sizes = ["64 kB"] if quick else list(SIZES)
    found = [{"item": item, "tool": tool, "seconds": seconds} for item in sizes for tool in tools]
    found += [
        {"item": item, "tool": tool, "seconds": seconds}
        for item in (FIRST, SHORT)
        for tool in tools
        if tool != PLAIN and not (quick and tool == "ray")
    ]
    return found


def rows_of(case: harness.Case, results: list[dict]) -> list[object]:
    head = [case["item"], case["tool"]]
    if case["item"] == FIRST:
        epochs = zip(*(result["ms"] for result in results), strict=True)
        return [*head, "", "", "", "", ", ".join(f"{harness.median(ms):.3g}" for ms in epochs)]
    rates = [result["rate"] for result in results]
    n_bytes = SIZES.get(case["item"], 1000)
    return [*head, *harness.three(rates, ".4g"), f"{harness.median(rates) * n_bytes / 1e6:.4g}", ""]


def ratios(found: dict[tuple[str, str], float]) -> list[list[str]]:
    rows = []
    for tool, bounds in RATIOS.items():
        for item, bound in zip(SIZES, bounds, strict=True):
            if (item, "ray") in found and (item, tool) in found:
                rows.append(
                    harness.against(f"ray over {tool}, {item}", found[item, "ray"] / found[item, tool], bound)
                )
    return rows


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    wanted = cases(arguments.quick)
    results = harness.measure(__file__, wanted, arguments.repetitions or (1 if arguments.quick else 3))
    rows = [rows_of(case, found) for case, found in zip(wanted, results, strict=True)]
    harness.show("From a worker on Ray to the consumer", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)
    found = {
        (case["item"], case["tool"]): harness.median(result["rate"] for result in values)
        for case, values in zip(wanted, results, strict=True)
        if case["item"] in SIZES
    }
    harness.show_bounds(ratios(found), arguments.csv)


if __name__ == "__main__":
    main()
