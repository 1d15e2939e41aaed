"""The files about the project agree with each other, and what they name exists."""

import re

import pytest

import pescador

from .kinds import ROOT

VERSIONS = {
    "conda/recipe.yaml": r"^  version: (\S+)$",
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## (\S+)",
}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VERSIONS)
def test_the_version_is_the_same_everywhere(name):
    found = re.search(VERSIONS[name], text(name), flags=re.MULTILINE)
    assert found
    assert found[1] == pescador.__version__


def test_the_conda_recipe_needs_what_the_package_needs():
    project = text("pyproject.toml")
    needs = re.search(r"^dependencies = \[\n(.*?)^\]", project, flags=re.MULTILINE | re.DOTALL)[1]
    needs = {need.replace(">=", " >=") for need in re.findall(r'"(.+)"', needs)}
    python = re.search(r'^requires-python = "(.+)"$', project, flags=re.MULTILINE)[1]
    run = re.search(r"^  run:\n((?:    - .+\n)+)", text("conda/recipe.yaml"), flags=re.MULTILINE)[1]
    assert needs
    assert set(re.findall(r"- (.+)", run)) == needs | {f"python {python}"}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", ".github/pull_request_template.md"])
def test_files_that_are_named_exist(name):
    paths = re.findall(r"(?<![\w./-])(?:[\w.-]+/)+[\w-]+\.(?:md|py|toml|yml)\b", text(name))
    paths += re.findall(r"(?<![\w./-])(?:[A-Z]+\.(?:cff|md)|\.ci/run|pyproject\.toml)\b", text(name))
    paths += [f"pescador/{path}" for path in re.findall(r"`/([\w/]+\.py)`", text(name))]
    folders = [ROOT, ROOT / "pescador" / "backends"]
    assert paths
    assert not [path for path in paths if not any((folder / path).exists() for folder in folders)]


def test_ci_runs_what_contributors_run():
    assert "      - run: .ci/run\n" in text(".github/workflows/ci.yml")
