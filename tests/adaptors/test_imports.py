"""Who does not use a framework does not need it."""

import os
import subprocess
import sys

import pytest

from ..kinds import ROOT


def run(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout.strip()


def test_pescador_imports_no_framework():
    script = "import sys, pescador, pescador.adaptors; print(sys.modules.keys() & {names})"
    assert run(script.replace("{names}", "{'torch', 'keras', 'jax', 'tensorflow', 'lightning'}")) == "set()"


@pytest.mark.parametrize(("name", "library"), [("torch", "PyTorch"), ("keras", "Keras 3")])
def test_without_the_framework_the_error_names_the_extra(name, library):
    said = run(
        f"import sys, pescador; sys.modules[{name!r}] = None\n"
        f"try: import pescador.adaptors.{name}\n"
        "except ImportError as error: print(isinstance(error, pescador.PescadorError), error)"
    )
    assert said.startswith("True ")
    assert library in said
    assert f'pip install "pescador[{name}]"' in said
