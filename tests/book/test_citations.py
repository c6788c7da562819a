"""Every source that code and notebooks name can be looked up in the book's bibliography."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import citations
from pruning_core.methods.base import METHODS
from pruning_core.models import MODELS

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
KEYS = set(
    re.findall(r"^@\w+\{([^,\s]+),", Path(__file__).parents[2].joinpath("book/references.bib").read_text(), re.M)
)


@pytest.mark.parametrize("name", METHODS)
def test_method_cites_an_entry_of_the_bibliography(name: str) -> None:
    assert METHODS[name].citation in KEYS


@pytest.mark.parametrize("name", MODELS)
def test_model_cites_an_entry_of_the_bibliography(name: str) -> None:
    assert MODELS[name].paper in KEYS


# --- links in notebooks, citations on the site


def _notebooks() -> dict[str, dict[str, Any]]:
    return {
        f"{file.parent.name}/{file.name}": json.loads(file.read_text()) for file in sorted(NOTEBOOKS.glob("*/*.ipynb"))
    }


@pytest.mark.parametrize("name", _notebooks())
def test_a_notebook_cites_in_words_and_the_site_by_its_bibliography(name: str) -> None:
    notebook = _notebooks()[name]
    as_stored = json.dumps(notebook)
    assert not re.search(r"\{cite", as_stored), "python book/_ext/citations.py NOTEBOOK turns {cite} into a link"
    on_the_site = citations.in_notebook(json.loads(as_stored), citations.cited, code=True)
    keys = set(re.findall(r"\{cite(?::t)?\}`([\w,]+)`", json.dumps(on_the_site)))
    assert keys, "no page is without a source"
    assert {key for several in keys for key in several.split(",")} <= KEYS
    assert json.dumps(citations.in_notebook(on_the_site, citations.linked, code=True)) == as_stored


def test_every_paper_has_one_entry_and_an_address() -> None:
    papers = citations.sources().values()
    assert len(papers) == len(KEYS) == len({(paper.textual, paper.url) for paper in papers})


@pytest.mark.parametrize(
    ("text", "on_the_site"),
    [
        ("([A, 2019](https://x.org/1); [B and C, 2020](https://x.org/2)),", "{cite}`a,b`,"),
        ("([A (2019)](https://x.org/1) says)", "({cite:t}`a` says)"),
        ("[A (2018)](https://x.org/1), [B and C (2020)](https://x.org/1)", None),
        ("([A, 2019](https://x.org/1); [code](https://x.org/2))", None),
        ("see ([A, 2019](https://x.org/1)) and ([A, 2019](https://x.org/1))", "see {cite}`a` and {cite}`a`"),
    ],
)
def test_only_what_names_a_paper_as_the_bibliography_does_is_a_citation(
    text: str, on_the_site: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers = {
        "a": citations.Source("A (2019)", "A, 2019", "https://x.org/1"),
        "b": citations.Source("B and C (2020)", "B and C, 2020", "https://x.org/2"),
    }
    monkeypatch.setattr(citations, "sources", lambda: papers)
    assert citations.cited(text) == (on_the_site or text)
    assert citations.linked(citations.cited(text)) == text
