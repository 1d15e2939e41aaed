"""What the benchmarks share: environments for peers, medians, tables, CSV."""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = Path(os.environ.get("PESCADOR_BENCH_ENVS", Path.home() / ".cache" / "pescador-bench"))


def environment(name: str, *requirements: str) -> Path:
    """Return the interpreter of an environment of its own in which `requirements` are installed."""
    folder = ENVIRONMENTS / f"{name}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    done = folder / "done"
    if not done.exists():
        print(f"# making an environment for {name} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True, stdout=sys.stderr)
        done.touch()
    return python


def measure(python: Path | str, script: str, *arguments: str, ours: bool) -> dict:
    """Run a script that prints a JSON object as its last line, and return that."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if ours:
        variables["PYTHONPATH"] = str(ROOT)
    result = subprocess.run(
        [python, script, *arguments], env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], form: str = "{:.3g}") -> str:
    """Return ``median (min-max)``."""
    numbers = [form.format(value) for value in (median(values), min(values), max(values))]
    return "{} ({}-{})".format(*numbers)


def machine() -> str:
    import numpy

    return (
        f"Python {platform.python_version()}, NumPy {numpy.__version__}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    cells = [[str(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}\n{machine()}\n")
    for number, row in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if not number:
            print("  ".join("-" * width for width in widths))


def write_csv(path: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if path:
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
