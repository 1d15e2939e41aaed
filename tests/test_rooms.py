"""The rooms of the package: where each lies, which may import which, and how large a module may be."""

import ast
import re
from graphlib import CycleError, TopologicalSorter

import pytest

from .kinds import ROOT

PACKAGE = ROOT / "pescador"
PATHS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = [name for name, path in PATHS.items() if path.name == "__init__.py"]

# Each room may import those before it, and what is in itself. Of modules that lie in none of these, only
# circles are looked for.
ROOMS = [
    "pescador.mux",
    "pescador.backends.system",
    "pescador.backends.protocol",
    "pescador.backends.worker",
    "pescador.backends.processes",
    "pescador.backends.consumer",
    "pescador.backends.shm",
    "pescador.backends.zmq",
    "pescador.backends.ray",
    "pescador.backends.thread",
    "pescador.commands",
]
TRANSPORTS = {
    "pescador.backends.shm",
    "pescador.backends.zmq",
    "pescador.backends.ray",
    "pescador.backends.thread",
}

MAX_LINES = 350


def imports(name):
    """Return the modules of the package that a module imports when it runs, at its head or in a function."""
    path = PATHS[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update(
                inner if (inner := f"{module}.{alias.name}") in PATHS else module for alias in node.names
            )
    return {module for module in found if module in PATHS and module != name}


def room(name):
    return max((room for room in ROOMS if f"{name}.".startswith(f"{room}.")), key=len, default=None)


@pytest.mark.parametrize("name", PATHS)
def test_imports_go_one_way(name):
    here = room(name)
    for module in imports(name):
        there = room(module)
        if here is None or there is None or here == there:
            continue
        assert ROOMS.index(there) < ROOMS.index(here), f"{name} imports {module}"
        assert not {here, there} <= TRANSPORTS, (
            f"{name} imports {module}: transports are strangers to each other"
        )


def test_there_are_no_circles():
    try:
        TopologicalSorter({name: imports(name) for name in PATHS}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_an_import_is_seen_wherever_it_stands():
    assert "pescador.backends.protocol.messages" in imports("pescador.backends.worker.process_loop")
    assert "pescador.core" in imports("pescador")
    assert "pescador.backends.consumer.worker_handle" not in imports(
        "pescador.backends.consumer.remote_stream"
    )


@pytest.mark.parametrize("name", PATHS)
def test_modules_are_short(name):
    n_lines = len(PATHS[name].read_text().splitlines())
    assert n_lines <= MAX_LINES, f"{n_lines} lines; find the two concepts in it"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_says_at_its_head_what_is_where(folder):
    """Who reads only the heads of folders finds everything."""
    head = ast.get_docstring(ast.parse(PATHS[folder].read_text())) or ""
    for name, path in PATHS.items():
        parent, _, module = name.rpartition(".")
        if parent == folder and module != "__main__":
            file = f"{module}/" if path.name == "__init__.py" else f"{module}.py"
            assert re.search(rf"(?m)(^|  ){re.escape(file)}\s", head), file
