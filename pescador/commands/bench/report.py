"""What was measured, and what it says: ranks, tables, advice, files."""

from __future__ import annotations

import csv
import importlib.util
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...exceptions import ParameterError
from .works import WORKS

__all__ = ["RANKS", "Answer", "Comparison", "Row", "advice", "check_plot", "plot", "write_csv"]

Answer = dict[str, Any]
"""What a host says to a question, as in JSON."""

TIE = 0.2
RANKS = f"a backend within {TIE:.0%} of a faster one's median shares its rank"

NOISY = 1.5  # times the least figure of a backend

SIMPLEST_FIRST = ("serial", "thread", "shm", "zmq")


@dataclass
class Row:
    """What is known of one backend."""

    backend: str
    slices: list[dict[str, float]] = field(default_factory=list)
    """Each with its items, seconds, cpu_seconds and memory_bytes."""
    rank: int | None = None
    error: str | None = None
    traceback: str = ""

    def take(self, answer: Answer) -> Answer | None:
        """Return the answer of a host, unless it is an error, which is kept."""
        self.error, self.traceback = answer.get("error"), answer.get("traceback", "")
        return None if self.error else answer

    @property
    def rates(self) -> list[float]:
        """Items per second of each slice."""
        return [part["items"] / part["seconds"] for part in self.slices]

    @property
    def rate(self) -> float:
        """Items per second, the median."""
        return statistics.median(self.rates)

    @property
    def cpu(self) -> float:
        """CPU seconds an item."""
        return statistics.median(part["cpu_seconds"] / part["items"] for part in self.slices)

    @property
    def memory(self) -> float:
        """Bytes, the largest reading."""
        return max(part["memory_bytes"] for part in self.slices)


@dataclass
class Comparison:
    """What is known of one work."""

    name: str
    rows: list[Row]
    step: float | None = None
    item_bytes: int | None = None

    def ranked(self) -> list[Row]:
        """Return the rows that have figures, fastest first, and set their ranks."""
        rows = sorted((row for row in self.rows if row.slices), key=lambda row: -row.rate)
        rank, best = 0, float("inf")
        for place, row in enumerate(rows, 1):
            if place == 1 or row.rate < (1 - TIE) * best:
                rank, best = place, row.rate
            row.rank = rank
        return rows

    def title(self) -> str:
        """Return what was measured."""
        size = "" if self.item_bytes is None else f", {scaled(self.item_bytes, 'B')} an item"
        what = WORKS[self.name].what if self.name in WORKS else f"the step is {scaled(self.step or 0, 's')}"
        return f"{self.name}{size}: {what}"

    def table(self) -> str:
        """Return the rows in columns."""
        rows = self.ranked()
        serial = next((row.rate for row in rows if row.backend == "serial"), None)
        lines = [["rank", "backend", "items/s", "min", "max", "x serial", "CPU/item", "memory"]]
        for row in rows:
            rates = [number(rate) for rate in (row.rate, min(row.rates), max(row.rates))]
            times = f"{row.rate / serial:.2f}" if serial else ""
            costs = [scaled(row.cpu, "s"), scaled(row.memory, "B")]
            lines.append([str(row.rank), row.backend, *rates, times, *costs])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        failed = [f"{row.backend} failed: {row.error}" for row in self.rows if row.error]
        return "\n".join((text if rows else []) + failed)

    def advice(self) -> str:
        """Return what to take from the figures: of those of the first rank, the simplest."""
        rows = self.ranked()
        if not rows:
            return f"{self.name}: no backend could be measured"
        order = [*SIMPLEST_FIRST, *(row.backend for row in rows)]
        first = sorted((row for row in rows if row.rank == 1), key=lambda row: order.index(row.backend))
        choice, *others = first
        text = f"{self.name}: {choice.backend}, {number(choice.rate)} items/s"
        if others:
            named = ", ".join(f"{row.backend} {number(row.rate)}" for row in others)
            text += f", the simplest of the fastest ({named})"
        behind = ", ".join(f"{row.backend} {number(row.rate)}" for row in rows if row.rank != 1)
        return text + (f"; ahead of {behind}" if behind else "")


def advice(comparisons: list[Comparison]) -> list[str]:
    """Return what to take from the figures."""
    lines = [found.advice() for found in comparisons]
    spreads = [
        (max(row.rates) / min(row.rates), row.backend, found.name)
        for found in comparisons
        for row in found.ranked()
    ]
    spread, backend, name = max(spreads, default=(1.0, "", ""))
    if spread > NOISY:
        lines.append(
            f"The slices of {backend} ({name}) differ by {spread:.1f} times: something else runs on this "
            "machine. Measure again when it is quiet."
        )
    return lines


def number(value: float) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def scaled(value: float, unit: str) -> str:
    """Return a quantity with three digits and a prefix."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1), ("m", 1e-3), ("µ", 1e-6)):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{1e9 * value:.3g} n{unit}" if value else f"0 {unit}"


def write_csv(path: str, comparisons: list[Comparison]) -> None:
    """Write a line for each row."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ("items/s", "min", "max", "CPU seconds/item", "memory bytes")
        writer.writerow(["work", "rank", "backend", *names, "error"])
        for found in comparisons:
            for row in found.ranked():
                figures = (row.rate, min(row.rates), max(row.rates), row.cpu, row.memory)
                writer.writerow([found.name, row.rank, row.backend, *figures, row.error])
            for row in found.rows:
                if not row.slices:
                    writer.writerow([found.name, "", row.backend, *[""] * len(names), row.error])


def check_plot(path: str) -> None:
    """Raise ParameterError if a figure cannot be drawn into this file."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ParameterError("--plot needs matplotlib, which is not installed: pip install 'pescador[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:] not in known:
        raise ParameterError(f"--plot {path}: the name must end in one of {', '.join(sorted(known))}")


def plot(path: str, comparisons: list[Comparison]) -> None:
    """Draw the rates, with bars from the least to the greatest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.6 * len(comparisons)), layout="constrained")
    all_axes = figure.subplots(len(comparisons), squeeze=False)[:, 0]
    for axes, found in zip(all_axes, comparisons, strict=True):
        rows = found.ranked()[::-1]
        rates = [row.rate for row in rows]
        ends = [[row.rate - min(row.rates) for row in rows], [max(row.rates) - row.rate for row in rows]]
        axes.barh([row.backend for row in rows], rates, xerr=ends, capsize=3)
        axes.set_title(found.name, loc="left")
    all_axes[-1].set_xlabel("items per second: the median, and from the least to the greatest")
    figure.savefig(path)
