"""What the benchmarks share: cases in processes of their own, environments for peers, tables, CSV.

A benchmark is a list of *cases*, dicts of plain values. Each is measured in a fresh process, all of them
in turn and then all again, so that a machine that is slow for a minute is slow for everybody. A case with
an ``environment`` runs in that environment, in which a peer is installed and this package is not; the
same script runs there, so this module imports nothing but the standard library at its head.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = Path(os.environ.get("PESCADOR_BENCH_ENVS", Path.home() / ".cache" / "pescador-bench"))
CASE_SECONDS = 120  # a case that takes longer hangs

DECODERS = ("pillow", "soundfile")
PEERS = {  # what is installed in the environment of that name
    "pescador 3.0.0": ("pescador==3.0.0", "psutil"),
    "torch": ("torch==2.13.0", "torchdata==0.11.0", "webdataset==1.0.2", "numpy", "psutil", *DECODERS),
    "faster-fifo": ("faster-fifo==1.5.2", "numpy", "psutil", "setuptools"),
    "grain": ("grain==0.2.18", "psutil", *DECODERS),
    "spdl": ("spdl-core==0.8.0", "numpy", "psutil", *DECODERS),
    "tensorflow": ("tensorflow-cpu==2.21.0", "psutil", *DECODERS),
    "figures": ("matplotlib>=3.7",),
}

Case = dict
Row = Sequence[object]


class CaseError(Exception):
    """A case cannot be measured; the message is what its row of the table says."""


def options(doc: str, measure_case: Callable[[Case], dict]) -> argparse.Namespace:
    """Return the command line's options; in a process that was started for one case, measure that."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few and short cases, no peers; a check")
    parser.add_argument("--no-peers", action="store_true", help="install and measure no other packages")
    parser.add_argument("--repetitions", type=int, help="how often each case is measured")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure_case(arguments.case)))
        raise SystemExit
    arguments.peers = not (arguments.quick or arguments.no_peers)
    return arguments


_not_installed: dict[str, str] = {}


def environment(name: str) -> Path:
    """Return the interpreter of the environment of a peer, which is made when it is first asked for."""
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    folder = ENVIRONMENTS / f"{name.replace(' ', '-')}-{python}"
    done, packages = Path(f"{folder}.txt"), "\n".join(PEERS[name])
    if name in _not_installed:
        raise CaseError(_not_installed[name])
    if not done.exists() or done.read_text() != packages:
        print(f"# making an environment for {name} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "-q", *PEERS[name]],
            stderr=subprocess.PIPE,
            text=True,
        )
        if pip.returncode:
            _not_installed[name] = f"does not install: {last_line(pip.stderr)}"
            raise CaseError(_not_installed[name])
        done.write_text(packages)
    return folder / "bin" / "python"


def measure(script: str, cases: Sequence[Case], repetitions: int) -> list[list[dict] | str]:
    """Return the results of each case, or why a peer has none."""
    results: list[list[dict] | str] = [[] for _ in cases]
    started = time.monotonic()
    for repetition in range(repetitions):
        for number, case in enumerate(cases):
            if isinstance(found := results[number], str):
                continue
            try:
                found.append(_measure(script, case))
                outcome = ""
            except CaseError as error:
                if "environment" not in case:
                    raise
                outcome = results[number] = str(error)
            name = ", ".join(str(value) for key, value in case.items() if key != "seconds")
            seconds = f"{time.monotonic() - started:4.0f} s"
            print(
                f"# {seconds}, {repetition + 1}/{repetitions}: {name} {outcome}", file=sys.stderr, flush=True
            )
    return results


def _measure(script: str, case: Case) -> dict:
    """Run the script in a process of its own for one case, and return what it printed last."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    python: str | Path = sys.executable
    if "environment" in case:
        python = environment(case["environment"])
    else:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [case.get("path"), str(ROOT)]))
    process = subprocess.Popen(
        [python, script, "--case", json.dumps(case)],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a peer that hangs is ended with its workers
    )
    try:
        output, errors = process.communicate(timeout=CASE_SECONDS)
    except subprocess.TimeoutExpired:
        raise CaseError(f"not done in {CASE_SECONDS} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        if "environment" not in case:
            print(errors, file=sys.stderr)
        raise CaseError(f"fails: {last_line(errors)}")
    return json.loads(output.splitlines()[-1])


def cpu_seconds() -> float:
    """CPU time of this process and its descendants so far, those that have ended included."""
    import psutil

    ended = os.times()
    total = time.process_time() + ended.children_user + ended.children_system
    for process in psutil.Process().children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])  # of itself, and of its own that have ended
        except psutil.Error:
            continue
    return total


def memory() -> int:
    """Bytes of memory of this process and its descendants; pages that they share are counted once."""
    import psutil

    total = 0
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        try:
            found = process.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(found, "pss", found.uss)
    return total


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:120]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def three(values: Iterable[float], form: str) -> list[str]:
    """Return the cells median, min and max."""
    values = list(values)
    return [format(value, form) for value in (median(values), min(values), max(values))]


def machine() -> str:
    import numpy

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return (
        f"Python {platform.python_version()}, NumPy {numpy.__version__}, {platform.system()}, "
        f"{os.cpu_count()} cores, {model}"
    )


def show(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table."""
    cells = [[str(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}\n{machine()}\n")
    for number, row in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if not number:
            print("  ".join("-" * width for width in widths))


BOUND_COLUMNS = ["figure", "measured", "bound", "met"]


def against(what: str, value: float, bound: float, at_least: bool = True, form: str = ".2f") -> list[str]:
    """Return the row of a figure that has a bound."""
    met = value >= bound if at_least else value <= bound
    return [what, format(value, form), f"{'≥' if at_least else '≤'} {bound:g}", "yes" if met else "no"]


def show_bounds(rows: Sequence[Row], path: Path | None) -> None:
    """Print the table of figures that have bounds; write it beside the results in `path`."""
    if rows:
        show("Against the bounds", BOUND_COLUMNS, rows)
    if path:
        write_csv(path.with_stem(path.stem + "_bounds"), BOUND_COLUMNS, rows)


def write_csv(path: Path | None, columns: Sequence[str], rows: Sequence[Row]) -> None:
    if path:
        with open(path, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
