"""The search path for modules, as another process needs it."""

import os
import sys

from pescador.backends.system import search_path


def test_the_search_path_holds_what_python_would_use_and_relative_entries_twice(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/one", tmp_path, "", "lib", b"/bytes", "/one", "/two"])
    start = search_path.START_FOLDER
    assert search_path.search_path() == ["/one", "", start, "lib", f"{start}/lib", "/two"]
    assert os.path.isabs(start)
    monkeypatch.setattr(search_path, "START_FOLDER", "")  # it had been deleted
    assert search_path.search_path() == ["/one", "", "lib", "/two"]
