"""What the pages of the documentation, and the README, show runs, and prints what they say.

The Python blocks of a page, put together, are one script, which runs by itself. A block of text after one of
them is what that prints, with '...' for what differs from run to run. A block below a comment
``<!-- not run: reason -->`` is only compiled.
"""

import doctest
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTED_ELSEWHERE = {"docs/resume.md": "test_docs.py", "docs/class_balance.md": "test_class_balance.py"} | {
    "docs/ranks.md": "test_docs.py"
}
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("**/*.md")) if "_build" not in page.parts),
]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n+)?"
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n*```text\n(?P<output>.*?)^```$)?",
    flags=re.DOTALL | re.MULTILINE,
)
MARK = "<end of block>"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MAX_NOT_RUN = 2


def blocks(page):
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def name(page):
    return page.relative_to(ROOT).as_posix()


WITH_BLOCKS = [page for page in PAGES if blocks(page) and name(page) not in TESTED_ELSEWHERE]


def missing(code):
    """Return the packages that a script imports and that are not installed."""
    packages = re.findall(r"^(?:import|from) (\w+)", code, flags=re.MULTILINE)
    packages += re.findall(r"^from pescador\.adaptors\.(\w+)", code, flags=re.MULTILINE)
    return sorted({package for package in packages if find_spec(package) is None})


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path):
    run = [block for block in blocks(page) if not block["reason"]]
    code = "".join(f"{block['code']}\nprint({MARK!r}, flush=True)\n" for block in run)
    if packages := missing(code):
        reason = f"{name(page)} needs {', '.join(packages)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, which CI should have installed")
        pytest.skip(reason)
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr == "" or page.name != "README.md"  # frameworks may warn
    printed = done.stdout.split(MARK + "\n")
    checker = doctest.OutputChecker()
    for block, got in zip(run, printed, strict=False):
        if block["output"] is not None:
            assert checker.check_output(block["output"], got, FLAGS), f"{block['code']}\nprints\n{got}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_that_are_not_run_are_few_and_compile(page):
    not_run = [block for block in blocks(page) if block["reason"]]
    assert len(not_run) <= MAX_NOT_RUN
    for block in not_run:
        compile(block["code"], name(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_python_block_is_found(page):
    text = page.read_text(encoding="utf-8")
    assert len(blocks(page)) == text.count("```python\n")
    assert ">>> " not in text
