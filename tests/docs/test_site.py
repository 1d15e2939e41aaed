"""The site builds without a warning, needs no network to be read, and works in a narrow browser."""

import contextlib
import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest

import pescador

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
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTH = 390  # pixels of a phone

# Opens each page in a narrow frame, and the search, and leaves what it found in the element that is read.
WRAPPER = """<!doctype html><pre id="found"></pre><script>
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function open(address) {
  const frame = document.createElement("iframe");
  frame.width = WIDTH;
  frame.height = 800;
  const loaded = new Promise((done) => { frame.onload = done; });
  frame.src = address;
  document.body.append(frame);
  await loaded;
  return frame;
}
(async () => {
  const found = { widths: {}, pictures: [], search: "" };
  for (const page of PAGES) {
    const frame = await open(page);
    const content = frame.contentDocument;
    found.widths[page] = content.documentElement.scrollWidth;
    for (const image of content.images) {
      image.loading = "eager";
      await image.decode().catch(() => found.pictures.push(`${page}: ${image.src}`));
    }
    frame.remove();
  }
  const search = await open("search.html?q=rate");
  for (let i = 0; i < 100 && !found.search.includes("finished"); i++) {
    await sleep(100);
    found.search = search.contentDocument.getElementById("search-results").innerText;
  }
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        pytest.skip(f"needs {', '.join(missing)}: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # From a copy, because the gallery and the drawings are written beside the pages.
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("_build", "gallery", "_drawings")
        )
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)
    shutil.copy(ROOT / "CITATION.cff", folder)
    command = "-m sphinx -W --keep-going -q -b html -D plot_gallery=0 docs html"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
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


@contextlib.contextmanager
def served(folder):
    """Serve a folder on the loopback interface, and give its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, from the packages of the system")
def test_it_works_in_a_narrow_browser(site, tmp_path):
    names = [page for page in pages(site) if page not in ("search.html", "genindex.html", "py-modindex.html")]
    wrapper = WRAPPER.replace("PAGES", json.dumps(names)).replace("WIDTH", str(WIDTH))
    (site / "wrapper.html").write_text(wrapper, encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
    options += (f"--user-data-dir={tmp_path}", "--virtual-time-budget=600000", "--window-size=1280,2000")
    with served(site) as address:
        done = subprocess.run(
            [CHROMIUM, *options, f"{address}/wrapper.html"], capture_output=True, text=True, timeout=110
        )
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert {page: width for page, width in found["widths"].items() if width > WIDTH} == {}
    assert found["pictures"] == [], "these cannot be shown"
    assert "StochasticMux" in found["search"]
    # The theme says there which of its modes it takes; Chromium gives all messages the level INFO.
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line and '"[PST]: ' not in line]
    assert errors == []
