"""Every script in examples/ runs by itself, from start to end, prints what it shows, and keeps its score."""

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TRAINING = re.compile(r"fit\(|backward\(|value_and_grad\(")
SECONDS = 100  # a script takes some seconds; a test that takes 120 ends the whole run, see conftest.py


def imported_packages(script):
    """Return the packages that a script cannot do without: those it imports first of all."""
    packages = set()
    for statement in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            packages.add(statement.module.partition(".")[0])
        elif isinstance(statement, ast.Import):
            packages |= {name.name.partition(".")[0] for name in statement.names}
        elif isinstance(statement, ast.Try):
            break  # what comes after it runs only where the optional packages are installed
    return packages


def run(script, folder):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": path},  # which opens no window
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_there_are_examples():
    assert len(EXAMPLES) >= 19


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_runs(script, tmp_path):
    missing = sorted(package for package in imported_packages(script) if find_spec(package) is None)
    if missing:
        reason = f"{script.name} needs {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, which the extra 'test' should have installed")
        pytest.skip(reason)
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "it printed nothing"
    assert "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir()), "it left files in the working directory"
    if done.stdout.startswith("skipped: "):
        reason = done.stdout.strip().removeprefix("skipped: ")
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, which CI should have installed")
        pytest.skip(reason)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_is_a_plain_script(script):
    """A worker never runs the user's script again, so no script needs a guard."""
    source = script.read_text(encoding="utf-8")
    assert "__main__" not in source
    assert ast.get_docstring(ast.parse(source)), "it does not say what it shows"


@pytest.mark.parametrize(
    "script",
    [script for script in EXAMPLES if TRAINING.search(script.read_text(encoding="utf-8"))],
    ids=lambda script: script.stem,
)
def test_example_that_trains_asserts_the_score_that_it_states(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    asserted = [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    scores = [
        test.comparators[0].value
        for test in asserted
        if isinstance(test, ast.Compare)
        and isinstance(test.ops[0], ast.GtE)
        and isinstance(test.comparators[0], ast.Constant)
    ]
    assert scores
    assert all(f"at least {score}" in " ".join(ast.get_docstring(tree).split()) for score in scores)
