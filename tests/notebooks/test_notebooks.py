"""Every notebook of the book: stored clean, with its parameters, and running from top to bottom at profile smoke."""

import html
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import yaml
from papermill.engines import papermill_engines

from pruning_core import records
from pruning_core.book.chapters import SOURCES, find_notebooks, unstripped
from pruning_core.book.notebooks import read_parameters, run_notebook
from pruning_core.book.profiles import read_profiles
from pruning_core.commands.options import given
from pruning_core.errors import UnknownName
from pruning_core.version import PROFILES
from tests.notebooks.in_process import InProcess

NOTEBOOKS = find_notebooks()
IN_A_KERNEL = "3_masks_to_networks"  # also run as `make book` runs it; the others are so in the slow tier


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=named)


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


def check_page(notebook: Any) -> None:
    """What a run at profile smoke must have left: every cell run, the stamp, and figures that carry an alt text."""
    assert notebook.metadata["pruning_book"]["profile"] == "smoke"
    assert 'class="page-stamp"' in notebook.cells[0].source
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    images = [shown["text/html"] for shown in data if "<img" in shown.get("text/html", "")]
    assert all('alt="' in image for image in images)
    assert not any("image/png" in shown for shown in data), "draw with pruning_core.plots: figures with an alt text"


@pytest.mark.notebooks
@every_notebook
def test_runs_at_profile_smoke(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported everything already: see in_process.py."""
    papermill_engines.register("in process", InProcess)
    monkeypatch.setattr(papermill, "execute_notebook", partial(papermill.execute_notebook, engine_name="in process"))
    check_page(run_notebook(path, "smoke"))


@pytest.mark.notebooks
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == IN_A_KERNEL else pytest.mark.slow) for path in NOTEBOOKS],
    ids=named,
)
def test_runs_in_a_kernel_of_its_own(path: Path) -> None:
    check_page(run_notebook(path, "smoke"))


CHANGED: dict[str, dict[str, Any]] = {
    "0_foundations/2_scores_budgets_schedules": {"seeds": 1, "epochs": 2, "sparsities": [0.8], "seed": 1},
    "2_sensitivity/2_weights": {"model": "lenet300_snip", "data": "digits", "methods": ["sipp", "magnitude"]},
    "5_how_sparse/0_opening": {"width": 0.1, "epochs": 2, "methods": ["magnitude", "random"], "sparsities": [0.5, 0.9]},
}
"""Three notebooks with other knobs than their profile's: each of the shared ones is changed in one of them."""


@pytest.mark.notebooks
@pytest.mark.parametrize("name", CHANGED)
def test_runs_with_changed_knobs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a parameter file, as `papermill -f` takes it; the numbers are those asked for, and the page says so."""
    papermill_engines.register("in process", InProcess)
    monkeypatch.setattr(papermill, "execute_notebook", partial(papermill.execute_notebook, engine_name="in process"))
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(CHANGED[name]), encoding="utf-8")
    asked = given([], [tmp_path / "mine.yml"])
    notebook = run_notebook(SOURCES / f"{name}.ipynb", "smoke", asked)
    check_page(notebook)
    rows = records.load(tmp_path / "cache" / "records")
    columns = {"model": "model", "data": "data", "width": "width", "seed": "seed"}
    for knob in columns.keys() & asked.keys():
        assert set(rows[columns[knob]]) == {asked[knob]}
    if "seeds" in asked:
        assert rows["seed"].nunique() == asked["seeds"]
    if "methods" in asked:
        assert set(rows["method"]) - {"dense"} == set(asked["methods"])
    if "sparsities" in asked:
        assert set(asked["sparsities"]) <= set(rows["asked"])
    if "epochs" in asked:
        assert asked["epochs"] in set(rows["epoch"])
    stamp = notebook.cells[0].source
    assert all(
        f"{knob} {value}" in html.unescape(stamp) for knob, value in asked.items() if knob not in ("seed", "seeds")
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
