"""Who does not use a framework does not need it."""

import sys

import pytest

from .conftest import run


def printed(script):
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pescador_imports_no_framework():
    script = "import sys, pescador, pescador.adaptors; print(sys.modules.keys() & {names})"
    assert (
        printed(script.replace("{names}", "{'torch', 'keras', 'jax', 'tensorflow', 'lightning'}")) == "set()"
    )


@pytest.mark.parametrize(("name", "library"), [("torch", "PyTorch"), ("keras", "Keras 3")])
def test_without_the_framework_the_error_names_the_extra(name, library):
    said = printed(
        f"import sys, pescador; sys.modules[{name!r}] = None\n"
        f"try: import pescador.adaptors.{name}\n"
        "except ImportError as error: print(isinstance(error, pescador.PescadorError), error)"
    )
    assert said.startswith("True ")
    assert library in said
    assert f'pip install "pescador[{name}]"' in said
