"""How a loader of files is measured, and the table."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import harness

from . import data
from .loaders import BATCH, LOADERS

COLUMNS = [
    "data", "workers", "loader", "samples/s", "min", "max", "CPU µs/sample", "memory, MB", "first batch, ms",
    "note",
]  # fmt: skip
DECODERS = {"sounds": "soundfile", "images": "PIL.Image", "arrays": "numpy"}
SECONDS = 1.0


def cases(arguments, root: str) -> Iterator[harness.Case]:
    """Make the data sets, and yield what is to be measured."""
    loaders = [name for name, (_, environment, _) in LOADERS.items() if arguments.peers or not environment]
    for name, decoder in DECODERS.items():
        if importlib.util.find_spec(decoder.split(".")[0]) is None:
            print(f"# {name} are left out: {decoder} is not installed", file=sys.stderr)
            continue
        folder = Path(root, name)
        folder.mkdir()
        data.write(name, folder, arguments.quick)
        for workers, loader in itertools.product((1, 2), ["shm"] if arguments.quick else loaders):
            if (loader == "serial" and workers > 1) or ("decoder" in loader and name != "images"):
                continue
            case = {
                "folder": str(folder), "data": name, "loader": loader, "workers": workers,
                "seconds": 0.1 if arguments.quick else SECONDS,
            }  # fmt: skip
            if environment := LOADERS[loader][1]:
                case["environment"] = environment
            yield case


def measure_case(case: harness.Case) -> dict:
    make, _, module = LOADERS[case["loader"]]
    __import__(module)
    __import__(DECODERS[case["data"]])
    started = time.perf_counter()
    batches = iter(make(case["data"], case["folder"], case["workers"]))
    use(batches, 1)
    first = time.perf_counter() - started
    run(batches, case["seconds"] / 3)  # until what was made ahead is used up, and every worker is at work
    before = harness.cpu_seconds()
    n, seconds = run(batches, case["seconds"])
    cpu = harness.cpu_seconds() - before
    memory = 0.0
    for _ in range(5):
        run(batches, case["seconds"] / 15)
        memory = max(memory, harness.memory())
    return {"rate": n / seconds, "cpu": cpu / n, "first": first, "memory": memory}


def use(batches: Iterator, number: int) -> None:
    for _ in range(number):
        batch = next(batches)["X"]
        assert len(batch) == BATCH


def run(batches: Iterator, seconds: float) -> tuple[int, float]:
    """Return how many samples came, and in how many seconds, from one batch's arrival to that of another."""
    n, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        use(batches, 1)
        n += BATCH
    return n, passed


def rows_of(case: harness.Case, results: list[dict] | str) -> list:
    head = [case["data"], case["workers"], case["loader"]]
    if isinstance(results, str):
        return [*head, "", "", "", "", "", "", results]
    return [
        *head, *harness.three((result["rate"] for result in results), ".0f"),
        f"{1e6 * harness.median(result['cpu'] for result in results):.0f}",
        f"{max(result['memory'] for result in results) / 1e6:.0f}",
        f"{1e3 * harness.median(result['first'] for result in results):.0f}", "",
    ]  # fmt: skip
