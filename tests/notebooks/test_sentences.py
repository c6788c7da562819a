"""Every sentence of the pages that states a result is true of the stored rows, and none stands outside of a backed cell."""

import ast
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import numpy as np
import pytest
import yaml

from pruning_core.book.chapters import SOURCES, find_notebooks
from pruning_core.book.sentences import Unbacked, _long_rows
from pruning_core.data import load_data

BACKED = re.compile(r"\bbacked\(")
RESULT = re.compile(
    r"\d ?(%|points\b)|\b(is|are|was|were|clearly|points) \W?(ahead|behind)\b|\b(clearly|significant(ly)?)\b"
    r"|\b(beats?|wins?|won|outlasts?|outperforms?|collapses|as (good|accurate)|no better|far (below|above|from))\b"
    r"|\b(better|worse|higher|lower|faster|slower) than\b|\b(highest|lowest|best|worst) (mean|accuracy|of all)\b"
)
"""Words of a sentence that may state a result. Sentences that state none are named, with the reason, in sentences.yml."""

NOT_PROSE = re.compile(r"^(`{3,}).*?^\1\s*$|^\$\$.*?\$\$|^#.*?$|^\|.*?$", re.MULTILINE | re.DOTALL)
SETTINGS = {
    *("seed", "asked", "epoch", "width", "kept", "strength", "draws", "p", "d_hid", "hidden", "epsilon", "points"),
    *("rounds", "factor"),
}
"""Columns of numbers that say what was run."""

ALLOWED: dict[str, dict[str, list[str]]] = yaml.safe_load(
    Path(__file__).with_name("sentences.yml").read_text(encoding="utf-8")
)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


WITH_RESULTS = [path for path in find_notebooks() if any(BACKED.search(cell.source) for cell in code_cells(path))]


def imports(source: str) -> str:
    """The import statements at the top level of a cell."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, nodes))


def results(path: Path) -> list[str]:
    """The sentences that the backed cells of a notebook show; nothing else of it runs but its imports."""
    shown: list[Any] = []
    scope: dict[str, Any] = {}
    with patch("IPython.display.display", shown.append):
        for cell in code_cells(path):
            exec(cell.source if BACKED.search(cell.source) else imports(cell.source), scope)
    return [entry.data for entry in shown]


def sentences(text: str) -> list[str]:
    """The sentences of a cell's prose, without headings, tables, formulas, exercises and their solutions."""
    prose = re.sub(r"\s+", " ", NOT_PROSE.sub("\n\n- ", text))
    return [part.strip(" -") for part in re.split(r"(?<=[.!?:]) (?=[A-Z*`$-])| - ", prose) if part.strip(" -")]


@pytest.mark.parametrize("path", WITH_RESULTS, ids=named)
def test_the_stored_rows_support_every_result(path: Path) -> None:
    said = results(path)
    assert len(said) >= sum(1 for cell in code_cells(path) if BACKED.search(cell.source))
    assert [sentence for sentence in said if re.search(r"\b(nan|inf)\b", sentence)] == []


@pytest.mark.parametrize("path", WITH_RESULTS, ids=named)
def test_no_result_survives_rows_that_say_something_else(path: Path) -> None:
    """Measured values dealt out anew among the rows that hold any: conditions that hold here too would be empty."""
    rows = _long_rows().copy()
    measured = [c for c in rows.select_dtypes("number") if c not in SETTINGS]
    random = np.random.default_rng(0)
    for column in measured:
        values = rows[column].dropna().unique()  # equal values stay equal: rows of one network repeat what it measured
        rows[column] = rows[column].map(dict(zip(values, random.permutation(values), strict=True)))
    with patch("pruning_core.book.sentences._long_rows", return_value=rows), pytest.raises(Unbacked):
        results(path)


@pytest.mark.parametrize("path", WITH_RESULTS, ids=named)
def test_the_code_behind_a_result_is_folded(path: Path) -> None:
    cells = [cell for cell in code_cells(path) if BACKED.search(cell.source)]
    assert [cell.id for cell in cells if "hide-input" not in cell.metadata.get("tags", [])] == []


@pytest.mark.parametrize("path", find_notebooks(), ids=named)
def test_no_result_stands_in_running_text(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    suspect = [sentence for cell in cells for sentence in sentences(cell) if RESULT.search(sentence)]
    allowed = [start for starts in ALLOWED.get(named(path), {}).values() for start in starts]
    assert [sentence for sentence in suspect if not sentence.startswith(tuple(allowed))] == [], (
        "put a result behind backed(...), or name the sentence in tests/notebooks/sentences.yml with the reason"
    )
    assert [start for start in allowed if not any(sentence.startswith(start) for sentence in suspect)] == [], (
        "no longer needed"
    )


def test_reasons_are_given_for_notebooks_that_exist() -> None:
    assert set(ALLOWED) <= {named(path) for path in SOURCES.glob("*/*.ipynb")}


def test_nine_thousand_images_in_all_are_6750_for_training() -> None:
    share = 9_000 / 60_000  # of CIFAR-10, the score, validation and test images included
    assert int(45_000 * share) == 6_750
    train = load_data("mnist5k", limit=1_000).train
    assert len(train) == int(len(load_data("mnist5k").train) * 1_000 / 5_000)
