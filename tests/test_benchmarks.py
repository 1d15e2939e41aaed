"""Benchmarks run, so that they cannot rot. Nothing is said about their figures here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

COMMANDS = {
    "bench_mux.py": ["--quick", "--no-peer"],
    "bench_scaling.py": ["--quick", "--no-peer"],
    "bench_memory.py": ["--quick"],
}


def test_every_benchmark_is_run_here():
    assert sorted(COMMANDS) == sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("script", COMMANDS)
def test_benchmark_runs_and_prints_a_table(script):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *COMMANDS[script]],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 5
