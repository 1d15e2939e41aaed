"""The README is short, and what it names exists. Its example is run with the pages, in docs/test_pages.py."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SITE = "https://pescador.readthedocs.io/en/latest/"
REPOSITORY = (
    "https://github.com/pescadores/pescador/blob/main/",
    "https://raw.githubusercontent.com/pescadores/pescador/main/",
)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def source(link):
    """Return the file that a link leads to: a page of the site, or a file of the repository."""
    for start in REPOSITORY:
        if link.startswith(start):
            return ROOT / link.removeprefix(start)
    assert link.startswith(SITE), f"{link} is not absolute, so it leads nowhere from the package index"
    page = link.removeprefix(SITE).removesuffix(".html")
    if page == "gallery/index":
        return ROOT / "examples" / "GALLERY_HEADER.rst"
    candidates = [ROOT / "docs" / f"{page}{suffix}" for suffix in (".md", ".rst")]
    return next((path for path in candidates if path.exists()), candidates[0])


def test_it_is_short():
    assert len(README) < 4000


def test_the_first_example_has_fifteen_lines_at_most():
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 15


def test_the_commands_name_files_that_are_there():
    scripts = re.findall(r"python (\S+\.py)", README)
    assert "examples/train_from_disk.py" in scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not source(link).exists()] == []


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = (block.strip() for block in blocks("sh") if "pytest" in block)
    steps = [line.partition("#")[0].strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
    assert any(step.startswith("step ") and step.endswith(f" {command}") for step in steps)
