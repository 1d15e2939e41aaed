"""The documentation site: python -m sphinx -W -b html docs docs/_build/html.

With ``-D plot_gallery=0`` the scripts of the gallery are shown but not executed, which takes much less time.
"""

import os
import runpy
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"  # before matplotlib is imported: nothing here has a window
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("KERAS_BACKEND", "torch")  # the default is TensorFlow, which is not installed here

import pescador

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for gallery_order

project = "pescador"
copyright = "the pescador developers"  # noqa: A001 -- the name that Sphinx wants
version = release = pescador.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "drawings", "gallery/*.ipynb"]
nitpicky = True  # a reference that leads nowhere is a warning, and a warning is an error
# Of other projects, whose pages the build does not ask for.
nitpick_ignore = [("py:data", "pescador.opening.State")]  # a type alias
nitpick_ignore_regex = [(r"py:.*", r"(?!pescador).*")]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc shows the types
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    # All but one are executed: it needs Ray, and without that it calls sys.exit(), which ends the build.
    "filename_pattern": r"/(?!several_machines)\w+\.py$",
    "within_subsection_order": "gallery_order.key",
    "default_thumb_file": str(HERE / "_drawings" / "thumbnail.png"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "reset_modules": ("matplotlib",),
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "pescador"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["pescador.css"]
html_show_sphinx = False
html_sourcelink_suffix = ""
html_theme_options = {
    "github_url": "https://github.com/pescadores/pescador",
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
}
html_context = {"default_mode": "auto"}  # light or dark, as the system is
html_sidebars = {"index": []}


def draw(_app):
    """Draw the figures of the pages: each script in drawings/ writes its own into _drawings/."""
    folder = HERE / "_drawings"
    folder.mkdir(exist_ok=True)
    for script in sorted((HERE / "drawings").glob("draw_*.py")):
        runpy.run_path(str(script))["main"](folder)


def setup(app):
    """Have the figures drawn before the pages are read."""
    app.connect("builder-inited", draw, priority=100)  # before the gallery, which shows one of them
