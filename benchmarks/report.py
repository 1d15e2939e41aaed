"""The tables and figures of benchmarks/README.md, from the files in benchmarks/results/.

    python benchmarks/report.py

Replaces what stands between the lines ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``, so that no figure
there can differ from the results, and draws the figures in an environment that has matplotlib.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import harness

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
RESULTS = HERE / "results"
OURS = ("shm", "zmq", "thread", "serial")
NO_PEER = (*OURS, "bare copy")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def whole(name: str) -> Callable[[Path], str]:
    """Return the maker of a table that shows a file as it is, without notes where there are none."""

    def make(results: Path) -> str:
        rows = harness.read_csv(results / f"{name}.csv")
        columns = [column for column in rows[0] if column != "note" or any(row["note"] for row in rows)]
        return table(columns, ([row[column] for column in columns] for row in rows))

    return make


def run(results: Path) -> str:
    facts = json.loads((results / "run.json").read_text())
    versions = ", ".join(facts["versions"])
    minutes = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in facts["seconds"].items())
    note = f"**{facts['note']}** " if facts["note"] else ""
    where = f"{facts['date']}, commit {facts['commit']}. {facts['machine']}"
    return f"{note}{where}. Peers: {versions}. Minutes: {minutes}."


def mux(results: Path) -> str:
    rows = [row for row in harness.read_csv(results / "mux.csv") if row["rate"] in ("", "8")]
    columns = [column for column in rows[0] if column != "rate"]
    return table(columns, ([row[column] for column in columns] for row in rows))


def transport(use: str, figure: str) -> Callable[[Path], str]:
    """Return the maker of a table with a line for each tool, and a column for each item."""

    def cell(row: dict[str, str]) -> str:
        if row["note"]:
            return row["note"]
        if figure == "CPU s/GB":
            return row[figure]
        if row["item"] in ("100 B", "1 kB"):
            return f"{1e6 / float(row['items/s']):.3g}"
        return f"{float(row['MB/s']) / 1000:.3g}"

    def make(results: Path) -> str:
        rows = [row for row in harness.read_csv(results / "transport.csv") if row["use"] == use]
        cells = {(row["tool"], row["item"]): cell(row) for row in rows}
        items = list(dict.fromkeys(row["item"] for row in rows if not row["item"].startswith("batch")))
        units = [
            "" if figure != "rate" else ", µs" if item in ("100 B", "1 kB") else ", GB/s" for item in items
        ]
        tools = dict.fromkeys(row["tool"] for row in rows if row["item"] in items)
        return table(
            ["tool", *(item + unit for item, unit in zip(items, units, strict=True))],
            ([tool, *(cells.get((tool, item), "") for item in items)] for tool in tools),
        )

    return make


def memory(results: Path) -> str:
    rows = harness.read_csv(results / "memory.csv")
    shown = [*rows[:: max(len(rows) // 8, 1)], rows[-1]]
    return table(list(rows[0]), (list(row.values()) for row in shown))


def soak(_: Path) -> str:
    """Return the table of the last soak, which no run of the benchmarks repeats: it takes an hour."""
    rows = harness.read_csv(RESULTS / "soak.csv")
    shown = [row for i, row in enumerate(rows) if i % 4 == 0 or row["part"] == "end"]
    return table(list(rows[0]), (list(row.values()) for row in shown))


def ahead(results: Path) -> str:
    """Return a list of all rows in which a peer is ahead of pescador."""
    lines = []
    rows = [row for row in harness.read_csv(results / "mux.csv") if row["times faster"]]
    for row in rows:
        if float(row["times faster"]) < 1:
            both = f"{row['peer µs/sample']} µs/sample against {row['µs/sample']}"
            lines.append(f"{row['mux']} over {row['streams']} streams: pescador 3.0.0, {both}")
    for name, what, tool, rate in (
        ("transport", ("item", "use"), "tool", "items/s"),
        ("scaling", ("work", "workers"), "backend", "items/s"),
        ("end_to_end", ("data",), "loader", "samples/s"),
    ):
        rows = [row for row in harness.read_csv(results / f"{name}.csv") if row[rate]]
        ours = {tuple(row[key] for key in what): float(row[rate]) for row in rows if row[tool] == "shm"}
        for row in rows:
            key = tuple(row[key] for key in what)
            if row[tool] not in NO_PEER and key in ours and float(row[rate]) > ours[key]:
                case = ", ".join(
                    f"{row[column]} workers" if column == "workers" else row[column] for column in what
                )
                ratio = float(row[rate]) / ours[key]
                lines.append(
                    f"{name.replace('_', ' ')}, {case}: {row[tool]}, {ratio:.2f} times the {rate} of shm"
                )
    if not lines:
        return "In no row of this run is a peer ahead of the default backend (shm), or of a mux."
    return "\n".join(f"- {line}" for line in lines)


SECTIONS: dict[str, Callable[[Path], str]] = {
    "run": run,
    "ahead": ahead,
    "mux": mux,
    "transport receive": transport("receive", "rate"),
    "transport read": transport("read", "rate"),
    "transport cpu": transport("receive", "CPU s/GB"),
    "bounds": whole("transport_bounds"),
    "scaling": whole("scaling"),
    "memory": memory,
    "end to end": whole("end_to_end"),
    "soak": soak,
}


def rendered(text: str, results: Path = RESULTS) -> str:
    """Return a README with its tables made anew."""
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        body = make(results)
        text, n = pattern.subn(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
        assert n == 1, f"{n} places for the table {name!r}"
    return text


def main() -> None:
    README.write_text(rendered(README.read_text()))
    subprocess.run([harness.environment("figures"), HERE / "figures.py", RESULTS], check=True)


if __name__ == "__main__":
    main()
