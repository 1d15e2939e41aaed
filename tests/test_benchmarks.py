"""Benchmarks run, so that they cannot rot. Nothing is said about their figures here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = [
    f"bench_{name}.py"
    for name in ("end_to_end", "growth", "memory", "mux", "ray", "scaling", "start", "states", "transport")
]


def test_every_benchmark_is_run_here():
    assert sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py")) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_benchmark_runs_and_prints_a_table(script):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--quick"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_tables_of_the_readme_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import report
    import run_all

    text = report.README.read_text(encoding="utf-8")
    assert report.rendered(text) == text, "run python benchmarks/report.py"
    assert [f"bench_{name}.py" for name in sorted(run_all.SCRIPTS)] == SCRIPTS
