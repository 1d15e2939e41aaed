"""How long it takes until there is something: to import pescador, and to get the first item of a pool.

    python benchmarks/bench_start.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

All times are compared with that of ``python -c "import numpy"``, which nobody can do without. "import
pescador" is the time of ``python -c "import pescador"`` beyond that. A first item is timed from the call of
ParallelStreamer(), in a program that has imported pescador; the second pool opens when the first is closed.
Each program runs 7 times, in turn with the import of NumPy; a figure is the median of the repetitions, each
of which is the median of these. Python's bytecode files are there. There are no peers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import harness

N_PROGRAMS = 7

FIRST_ITEMS = """
import time
from pescador import ParallelStreamer, Streamer

def first_item():
    started = time.perf_counter()
    with ParallelStreamer(Streamer(range, 3), **{options!r}) as stream:
        next(iter(stream))
        return time.perf_counter() - started

print(first_item(), first_item())
"""

POOLS = {
    "shm": {"backend": "shm"},
    "zmq": {"backend": "zmq"},
    "thread": {"backend": "thread"},
    "shm, spawn": {"backend": "shm", "start_method": "spawn"},
    "zmq, spawn": {"backend": "zmq", "start_method": "spawn"},
}


def run(program: str) -> tuple[float, str]:
    """Run a program in an interpreter of its own; return how long that took, in seconds, and its output."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, done.stdout


def measure_case(case: dict) -> dict:
    """Measure one case."""
    pool = case["pool"]
    program = FIRST_ITEMS.format(options=POOLS[pool]) if pool else "import pescador"
    run(program)  # once, for what Python and the system cache
    numpy, found = [], []
    for _ in range(case["programs"]):
        numpy.append(run("import numpy")[0])
        seconds, output = run(program)
        found.append([float(word) for word in output.split()] or [seconds])
    medians = [harness.median(column) for column in zip(*found, strict=True)]
    reference = harness.median(numpy)
    return {"numpy": reference, "found": medians if pool else [medians[0] - reference]}


COLUMNS = ["what", "ms", "min", "max", "times import numpy"]


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    n_programs = 1 if arguments.quick else N_PROGRAMS
    cases = [{"pool": pool, "programs": n_programs} for pool in ("", *POOLS)]
    results = harness.measure(__file__, cases, arguments.repetitions or (1 if arguments.quick else 3))
    numpy = [result["numpy"] for found in results for result in found]
    bounds = []
    rows = [["import numpy", *harness.three((1e3 * seconds for seconds in numpy), ".1f"), "1.00"]]
    for case, found in zip(cases, results, strict=True):
        names = ["first pool", "second pool"] if case["pool"] else [""]
        for i, name in enumerate(names):
            seconds = [result["found"][i] for result in found]
            ratio = harness.median(result["found"][i] / result["numpy"] for result in found)
            what = f"{case['pool']}, first item of the {name}" if name else "import pescador, beyond NumPy"
            rows.append([what, *harness.three((1e3 * each for each in seconds), ".1f"), f"{ratio:.2f}"])
            if name == "first pool" and case["pool"] in ("shm", "zmq"):
                bounds.append(harness.against(f"{what}, times import numpy", ratio, 1.3, at_least=False))
            elif not name or case["pool"] in ("shm", "zmq"):
                bound = 15 if name else 20
                bounds.append(harness.against(f"{what}, ms", float(rows[-1][1]), bound, at_least=False))
    harness.show("How long it takes to start", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)
    harness.show_bounds(bounds, arguments.csv)


if __name__ == "__main__":
    main()
