"""The table of pages counts what stands in a notebook."""

import json
from pathlib import Path

from pruning_core.book.chapters import find_notebooks
from tests.notebooks.pages import about, table

CELLS = [
    ("markdown", "# A title\n\nSome words first. What is it for? More ([Lee, 2019](https://a.b/c.d))."),
    ("code", 'profile = "quick"\nseed = 0\ndevice = "cpu"', "parameters"),
    ("markdown", "**The short answer.** It is [for](x.ipynb) this. And more."),
    ("code", "from pruning_core import plots\n\nplots.evidence(rows)"),
    ("code", "a = 1\n" * 40, "hide-input"),
    ("markdown", "## Exercises\n\n```{exercise} One\n:label: ex-one\n\nNot counted as words of the text.\n```"),
    ("code", 'answer = None\ncheck("a/b", answer)'),
]


def test_a_page_in_one_line(tmp_path: Path) -> None:
    cells = [
        {"cell_type": kind, "source": text.splitlines(keepends=True), "metadata": {"tags": list(tags)}}
        for kind, text, *tags in CELLS
    ]
    path = tmp_path / "9_test" / "1_first.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps({"cells": cells, "metadata": {}}), encoding="utf-8")
    ran = tmp_path / "ran" / "9_test" / "1_first.ipynb"
    ran.parent.mkdir(parents=True)
    found = about(path, tmp_path / "ran")
    assert (found.page, found.question, found.answer) == ("9_test/1_first", "What is it for?", "It is [for] this.")
    assert (found.title_figure, found.figures, found.backed) == ("evidence", 1, 0)
    assert (found.exercises, found.longest_cell, found.seconds) == (1, 3, None)
    assert found.words == 10 + 9  # below the title, and the answer
    ran.write_text(json.dumps({"cells": [], "metadata": {"pruning_book": {"seconds": 12.4}}}), encoding="utf-8")
    assert "| 3 | 12 |" in table([about(path, tmp_path / "ran")])


def test_every_page_but_the_openings_has_an_answer_and_a_figure() -> None:
    pages = [about(path) for path in find_notebooks() if not path.stem.startswith("0_")]
    assert [page.page for page in pages if not page.title_figure] == []
    without = [page.page for page in pages if not page.answer]
    assert without == ["0_foundations/6_one_footing"]  # its answer needs the footing explained first
    assert all(page.exercises >= 3 and page.words > 300 for page in pages)
