"""Run all benchmarks, write benchmarks/results/, and make the tables and figures of benchmarks/README.md.

    python benchmarks/run_all.py [--quick] [--repetitions 3] [--note TEXT]

Is meant to end in less than 40 minutes on two cores, once the environments of the peers exist (some minutes
and 3 GB); results/run.json has how long the last run took.
With --quick nothing is written: a check in a minute or two that all of it works, without peers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
import report

SCRIPTS = ("mux", "transport", "scaling", "memory", "end_to_end", "states", "start", "growth", "ray")
LONG = ("transport", "scaling", "end_to_end", "growth", "ray")  # their cases are measured once less


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", harness.ROOT, *arguments], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def facts(note: str, seconds: dict[str, float]) -> dict:
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "pescador", "benchmarks/*.py")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD") + ("" if changed == "unknown" else " and changes"),
        "machine": harness.machine(),
        "versions": [one for packages in harness.PEERS.values() for one in packages if "==" in one],
        "seconds": {name: round(value) for name, value in seconds.items()},
        "note": note,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a check that it works")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--note", default="", help="a remark on the run, which the README shows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) if arguments.quick else report.RESULTS
        seconds = {}
        for name in SCRIPTS:
            command = [sys.executable, report.HERE / f"bench_{name}.py", "--csv", results / f"{name}.csv"]
            if arguments.quick:
                command.append("--quick")
            elif name == "memory":
                command += ["--minutes", "1"]
            else:
                command += ["--repetitions", str(max(1, arguments.repetitions - (name in LONG)))]
            print(f"# {name}", file=sys.stderr, flush=True)
            started = time.monotonic()
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(harness.ROOT)})
            seconds[name] = time.monotonic() - started
        text = json.dumps(facts(arguments.note, seconds), indent=2, ensure_ascii=False)
        (results / "run.json").write_text(text + "\n")
        if arguments.quick:
            report.rendered(report.README.read_text(), results)
        else:
            report.main()


if __name__ == "__main__":
    main()
