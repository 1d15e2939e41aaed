"""Draws the figures of the benchmarks; needs matplotlib. Run by report.py:

python benchmarks/figures.py benchmarks/results
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "pescador",  # the same file from the same results
        "svg.fonttype": "none",
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "font.size": 10,
    }
)
BYTES = {"100 B": 100, "1 kB": 1000, "64 kB": 1 << 16, "1 MB": 1 << 20, "4 MB": 1 << 22, "16 MB": 1 << 24}
STYLES = {  # pescador in full lines
    "bare copy": ("0.6", ":"),
    "shm": ("tab:red", "-"),
    "zmq": ("tab:orange", "-"),
    "thread": ("tab:blue", "-"),
    "pescador 3.0.0": ("tab:brown", "--"),
    "DataLoader": ("tab:purple", "--"),
    "multiprocessing.Queue": ("tab:green", "--"),
    "faster-fifo": ("tab:olive", "--"),
    "Grain": ("tab:pink", "--"),
    "SPDL": ("tab:cyan", "--"),
    "SPDL, arena": ("tab:cyan", "-."),
}


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def transport(rows, path: Path, use: str, tools, title: str) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for tool in tools:
        points = [
            (BYTES[row["item"]], float(row["MB/s"]) / 1000)
            for row in rows
            if row["tool"] == tool and row["use"] == use and row["item"] in BYTES and row["MB/s"]
        ]
        if points:
            color, line = STYLES[tool]
            axes.loglog(*zip(*points, strict=True), line, color=color, marker="o", markersize=3, label=tool)
    axes.set_xticks(list(BYTES.values()), list(BYTES))
    axes.minorticks_off()
    axes.set(xlabel="size of an item (a dict of one array)", ylabel="GB/s", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def mux(rows, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    names = {
        "ShuffledMux": "tab:blue",
        "RoundRobinMux": "tab:green",
        "Stochastic with_replacement": "tab:red",
    }
    for name, color in names.items():
        kept = [
            row
            for row in rows
            if row["mux"] == name and row["weights"] == "equal" and row["rate"] in ("", "8")
        ]
        for column, line, label in (
            ("µs/sample", "-", name),
            ("peer µs/sample", "--", f"{name}, pescador 3.0.0"),
        ):
            points = [(int(row["streams"]), float(row[column])) for row in kept if row[column]]
            if points:
                axes.loglog(
                    *zip(*points, strict=True), line, color=color, marker="o", markersize=3, label=label
                )
    axes.set(xlabel="streams", ylabel="µs a sample", title="What a mux costs a sample")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def scaling(rows, path: Path) -> None:
    works = list(dict.fromkeys(row["work"] for row in rows if row["work"] not in ("free open", "tiny")))
    figure, panels = plt.subplots(1, len(works), figsize=(2.6 * len(works), 3.6), squeeze=False)
    for axes, work in zip(panels[0], works, strict=True):
        kept = [
            row for row in rows if row["work"] == work and row["times serial"] and row["backend"] != "serial"
        ]
        bars = [(f"{row['backend']}, {row['workers']}", row) for row in kept]
        colors = [STYLES[row["backend"]][0] for _, row in bars]
        axes.barh([name for name, _ in bars], [float(row["times serial"]) for _, row in bars], color=colors)
        axes.invert_yaxis()
        axes.set(title=work, xlabel="times serial")
        axes.tick_params(labelsize=7)
    save(figure, path)


def end_to_end(rows, path: Path) -> None:
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(7.5, 3), squeeze=False, sharey=True)
    for axes, name in zip(panels[0], names, strict=True):
        kept = [row for row in rows if row["data"] == name and row["samples/s"]]
        colors = ["tab:red" if row["loader"] in ("serial", "shm", "zmq", "thread") else "0.6" for row in kept]
        axes.barh([row["loader"] for row in kept], [float(row["samples/s"]) for row in kept], color=colors)
        axes.invert_yaxis() if axes is panels[0][0] else None
        axes.set(title=name, xlabel="samples/s")
        axes.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
    save(figure, path)


def main() -> None:
    folder = Path(sys.argv[1])
    rows = read(folder / "transport.csv")
    main_tools = ("shm", "zmq", "thread", "pescador 3.0.0", "DataLoader")
    transport(rows, folder / "transport.svg", "read", main_tools,
              "From one worker to the consumer, which reads it once")  # fmt: skip
    others = [tool for tool in STYLES if tool != "thread"]  # it hands over a reference, whatever the size
    transport(rows, folder / "transport_receive.svg", "receive", others, "From one worker to the consumer")
    mux(read(folder / "mux.csv"), folder / "mux.svg")
    scaling(read(folder / "scaling.csv"), folder / "scaling.svg")
    end_to_end(read(folder / "end_to_end.csv"), folder / "end_to_end.svg")
    rows = [row for row in read(folder / "end_to_end_files.csv") if row["workers"] == "2"]
    end_to_end(rows, folder / "end_to_end_files.svg")


if __name__ == "__main__":
    main()
