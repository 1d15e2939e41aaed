"""The tables and figures of benchmarks/README.md, from the files in benchmarks/results/.

    python benchmarks/report.py [--before FOLDER]

Replaces what stands between the lines ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``, so that no figure
there can differ from the results, and draws the figures in an environment that has matplotlib. With --before,
the results of an earlier run, it only prints which tools have changed places.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import harness

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
RESULTS = HERE / "results"
OURS = ("shm", "zmq", "thread", "serial")
NO_PEER = (*OURS, "shm, portable", "zmq, portable", "bare copy")
TIE = 0.2


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


def rates(results: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Return each case that is measured with several tools, and what each of them reaches."""
    for row in harness.read_csv(results / "mux.csv"):
        if row["times faster"]:
            case = ", ".join(row[column] for column in ("mux", "streams", "weights", "rate"))
            ours, peer = (1 / float(row[column]) for column in ("µs/sample", "peer µs/sample"))
            yield f"mux, {case}", {"pescador": ours, "pescador 3.0.0": peer}
    for name, what, tool, rate in (
        ("transport", ("item", "use"), "tool", "items/s"),
        ("scaling", ("work", "workers"), "backend", "items/s"),
        ("end_to_end", ("data",), "loader", "samples/s"),
        ("end_to_end_files", ("data", "workers"), "loader", "samples/s"),
    ):
        cases: dict[str, dict[str, float]] = {}
        for row in harness.read_csv(results / f"{name}.csv"):
            key = (f"{row[column]} workers" if column == "workers" else row[column] for column in what)
            if row[rate]:
                case = ", ".join((name.replace("_", " "), *key))
                cases.setdefault(case, {})[row[tool]] = float(row[rate])
        yield from cases.items()


def ahead(results: Path) -> str:
    """Return a list of all cases in which a peer is ahead of a mux, or of the default backend."""
    lines = []
    for case, found in rates(results):
        ours = found.get("shm", found.get("pescador"))
        for tool, rate in found.items():
            if ours is not None and tool not in (*NO_PEER, "pescador") and rate > ours:
                lines.append(f"- {case}: {tool}, {rate / ours:.2f} times as fast")
    if not lines:
        return "In no row of this run is a peer ahead of the default backend (shm), or of a mux."
    return "\n".join(lines)


def changes(before: Path, after: Path) -> list[str]:
    """Return the pairs of tools whose order is not that of an earlier run; less than 20 % apart is a tie."""
    lines = []
    earlier = dict(rates(before))
    for case, found in rates(after):
        common = [tool for tool in found if tool in earlier.get(case, {})]
        for one, other in combinations(common, 2):
            was, now = (run[one] / run[other] for run in (earlier[case], found))
            if (was > 1) != (now > 1) and min(max(was, 1 / was), max(now, 1 / now)) > 1 / (1 - TIE):
                lines.append(f"{case}: {one} was {was:.2f} times as fast as {other}, and is {now:.2f} times")
    return lines


SECTIONS: dict[str, Callable[[Path], str]] = {
    "run": run,
    "ahead": ahead,
    "mux": mux,
    "transport receive": transport("receive", "rate"),
    "transport read": transport("read", "rate"),
    "transport cpu": transport("receive", "CPU s/GB"),
    "bounds": whole("transport_bounds"),
    "scaling": whole("scaling"),
    "scaling bounds": whole("scaling_bounds"),
    "memory": memory,
    "end to end": whole("end_to_end"),
    "files": whole("end_to_end_files"),
    "states": whole("states"),
    "start": whole("start"),
    "start bounds": whole("start_bounds"),
    "ray": whole("ray"),
    "ray bounds": whole("ray_bounds"),
    "growth": whole("growth"),
    "growth workers": whole("growth_workers"),
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, help="results of an earlier run: print what changed its place")
    arguments = parser.parse_args()
    if arguments.before:
        found = changes(arguments.before, RESULTS)
        print("\n".join(found) or "Nothing changed its place.")
    else:
        main()
