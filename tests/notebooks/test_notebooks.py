"""Every notebook of the book: stored clean, with its parameters, and running from top to bottom at profile smoke."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from pruning_core.book.chapters import SOURCES, find_notebooks, unstripped
from pruning_core.book.notebooks import read_parameters, read_profiles, run_notebook
from pruning_core.errors import UnknownName
from pruning_core.version import PROFILES

NOTEBOOKS = find_notebooks()
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")


@every_notebook
def test_stored_without_outputs(path: Path) -> None:
    assert unstripped(path) == []


@every_notebook
def test_opens_with_a_title_then_its_parameters(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    title, parameters = notebook.cells[:2]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert "parameters" in parameters.metadata.get("tags", [])
    names = read_parameters(path)
    assert {"profile", "seed", "device"} <= set(names)
    lines = [line for line in parameters.source.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) == len(names), "papermill understands one assignment a line"
    assert names["profile"].strip("'\"") == "quick"


@every_notebook
def test_has_numbers_for_every_profile(path: Path) -> None:
    settings = {p: read_profiles(path.with_name("profiles.yml"), path.stem, p) for p in PROFILES}
    assert len({frozenset(values) for values in settings.values()}) == 1
    assert settings["smoke"] != settings["quick"], "smoke is to be a few seconds long"


@pytest.mark.notebooks
@every_notebook
def test_runs_at_profile_smoke(path: Path) -> None:
    notebook = run_notebook(path, "smoke")
    assert notebook.metadata["pruning_book"]["profile"] == "smoke"
    assert 'class="page-stamp"' in notebook.cells[0].source
    images = [
        output.data["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "<img" in output.get("data", {}).get("text/html", "")
    ]
    assert all('alt="' in image for image in images)
    assert not [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})], (
        "draw with pruning_core.plots, whose figures carry an alt text"
    )


@every_notebook
def test_refuses_a_misspelt_parameter(path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'profile'"):
        run_notebook(path, "smoke", {"profil": "quick"})


def test_profiles_name_only_notebooks_that_exist() -> None:
    for file in SOURCES.glob("*/profiles.yml"):
        for profile, notebooks in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            for stem in notebooks:
                assert file.with_name(f"{stem}.ipynb").is_file(), f"{file} names {stem} in {profile}"
