"""The site builds without a warning, needs no network to be read, and works in a narrow browser.

With ``PESCADOR_GALLERY=1``, as in CI, the scripts of the gallery are executed, and what is not installed is a
failure. Without it they are only shown, which takes a third of the time.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

import pescador

from .chromium import CHROMIUM, Browser, served
from .test_pages import ROOT

NEEDED = (
    "sphinx",
    "numpydoc",
    "sphinx_gallery",
    "pydata_sphinx_theme",
    "sphinx_design",
    "myst_parser",
    "torch",
    "keras",
)
WIDTH = 390  # pixels of a phone
EXECUTE = os.environ.get("PESCADOR_GALLERY") == "1"
WITHOUT_FIGURE = {  # pages of the gallery that have nothing to draw
    "buffering",  # what it shows are the shapes of batches
    "memory_mapped",  # in these two, it is
    "npz_archives",  # numbers of bytes
    "several_machines",  # is not executed
}

RESULTS = """new Promise(async (done) => {
  const results = document.getElementById("search-results");
  while (!results.innerText.includes("finished")) await new Promise((later) => setTimeout(later, 50));
  done(results.innerText);
})"""
MISTAKES = {
    "none": "",
    "a script that raises": "<script>throw new Error()</script>",
    "one that raises later": "<script>setTimeout(() => { throw new Error() })</script>",
    "a promise that is not kept": "<script>Promise.reject(new Error())</script>",
    "an error in the console": "<script>console.error(1)</script>",
    "no script": "<script src=nothing.js></script>",
    "no style": "<link rel=stylesheet href=nothing.css>",
    "no picture": "<img src=data:image/png,nothing loading=lazy>",
    "too wide": "<div style='width: 500px; height: 1px'>",
}


def lacks(reason):
    """Skip a test for what is not installed, or fail if all of them have to run."""
    if EXECUTE:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        lacks(f"needs {', '.join(missing)}: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # From a copy, because the gallery and the drawings are written beside the pages.
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("_build", "gallery", "_drawings")
        )
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)
    shutil.copy(ROOT / "CITATION.cff", folder)
    command = f"-m sphinx -W --keep-going -q -b html -D plot_gallery={int(EXECUTE)} docs html"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def pages(site):
    return sorted(
        page.relative_to(site).as_posix() for page in site.rglob("*.html") if "_static" not in page.parts
    )


def test_every_public_name_is_in_the_reference(site):
    reference = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    assert [name for name in pescador.__all__ if f'id="pescador.{name}"' not in reference] == []


def test_no_page_needs_the_network(site):
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?://|<link[^>]+rel="stylesheet"[^>]+href="https?://'
    )
    assert [page for page in pages(site) if loads.search((site / page).read_text(encoding="utf-8"))] == []


@pytest.mark.skipif(not EXECUTE, reason="takes PESCADOR_GALLERY=1")
def test_every_page_of_the_gallery_has_its_figure(site):
    scripts = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
    pages = {name: (site / "gallery" / f"{name}.html").read_text(encoding="utf-8") for name in scripts}
    assert {name for name in scripts if f'src="../_images/sphx_glr_{name}_001.png"' not in pages[name]} == (
        WITHOUT_FIGURE
    )


def test_it_works_in_a_narrow_browser(site, tmp_path):
    if CHROMIUM is None:
        lacks("needs Chromium, from the packages of the system")
    with served(site) as address, Browser(tmp_path, WIDTH) as browser:
        problems = {page: browser.open(f"{address}/{page}") for page in pages(site)}
        problems["search"] = browser.open(f"{address}/search.html?q=rate")
        found = browser.evaluate(RESULTS)
    assert {page: found for page, found in problems.items() if found} == {}
    assert "StochasticMux" in found


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, from the packages of the system")
def test_mistakes_of_a_page_are_found(tmp_path):
    beginning = "<!doctype html><link rel=icon href=data:><meta name=viewport content=width=device-width>"
    for name, mistake in MISTAKES.items():
        (tmp_path / f"{name}.html").write_text(beginning + mistake, encoding="utf-8")
    with served(tmp_path) as address, Browser(tmp_path / "profile", WIDTH) as browser:
        problems = {name: browser.open(f"{address}/{name}.html") for name in MISTAKES}
    assert {name: len(found) for name, found in problems.items()} == {
        name: int(name != "none") for name in MISTAKES
    }
