"""Notebooks that are read without MyST: nothing of its syntax is left, and nothing of what it says is lost."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

import colab
from plain import labels, plain
from pruning_core.book import find_notebooks
from repository import ROOT

PLACE = ROOT / "notebooks" / "5_how_sparse" / "4_one_shot.ipynb"
SITE = "https://ada.github.io/book/"
MYST = re.compile(
    r"^`{3,}\{|^:(label|class|name):|\$\$ *\(eq:|\{(doc|eq|ref|term|func|class|meth|mod)\}+`|\{cite", re.M
)
every_notebook = pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: f"{path.parent.name}/{path.stem}")


def changed(text: str, kind: str = "markdown", **cell: object) -> str:
    notebook = {"cells": [{"cell_type": kind, "source": text, **cell}]}
    return "".join(plain(notebook, PLACE, SITE)["cells"][0]["source"])


def stored(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@every_notebook
def test_no_notebook_keeps_a_directive_a_label_or_a_role(path: Path) -> None:
    made = plain(stored(path), path, SITE)
    nbformat.validate(nbformat.from_dict(made))
    for before, after in zip(stored(path)["cells"], made["cells"], strict=True):
        text = "".join(after["source"])
        assert not MYST.search(text), text
        if after["cell_type"] == "markdown":
            blocks = [token.content for token in MarkdownIt().parse(text) if token.type in ("fence", "html_block")]
            folded = sum(block.startswith("<details>") for block in blocks)
            assert folded == sum(block.startswith("</details>") for block in blocks)
            source = "".join(before["source"])
            assert folded == len(re.findall(r"^`{3,}\{solution\}|:class: dropdown(?=\n\nThe \$x)", source, re.M))
        elif "doc}" not in "".join(before["source"]):
            assert text == "".join(before["source"])


@every_notebook
def test_links_between_notebooks_lead_to_files(path: Path) -> None:
    for cell in plain(stored(path), path, SITE)["cells"]:
        for target in re.findall(r"\]\(([^):]+\.ipynb)\)", "".join(cell["source"])):
            assert (path.parent / target).is_file(), target


def test_an_exercise_is_a_heading_and_its_solution_is_folded_with_its_code() -> None:
    text = changed("```{exercise} A cone\n:label: ex-cone\n\nHow large?\n```\n\nMore.")
    assert text == "### Exercise: A cone\n\nHow large?\n\nMore."
    text = changed("````{solution} ex-cone\n:class: dropdown\n\n```python\nx = 1\n```\n````\n\n## Further reading")
    assert text == "<details><summary>Solution</summary>\n\n```python\nx = 1\n```\n\n</details>\n\n## Further reading"


def test_an_admonition_is_folded_or_quoted_as_on_the_site() -> None:
    folded = changed("```{admonition} Why\n:class: dropdown\n\nBecause.\n```")
    assert folded == "<details><summary>Why</summary>\n\nBecause.\n\n</details>"
    assert changed("```{admonition} Why\n\nBecause.\n```") == "> **Why**\n>\n> Because."


def test_other_blocks_stay() -> None:
    code = "```python\nx = {exercise}\n```\n\nA `{name}` and `b`."
    assert changed(code) == code
    assert changed('f"`{name}` and `{other}`"', "code") == 'f"`{name}` and `{other}`"'


def test_formulas_have_numbers_and_lines_of_several_rows_an_environment() -> None:
    text = "$$x$$ (eq:a)\n\n$$\na &= b \\\\\nc &= d .\n$$ (eq:b)\n\n$$free$$\n\nBy {eq}`eq:b` and {eq}`eq:a`."
    out = changed(text)
    assert out.startswith("$$x \\tag{1}$$")
    assert "$$\\begin{aligned}a &= b \\\\\nc &= d .\\end{aligned} \\tag{2}$$" in out
    assert out.endswith("$$free$$\n\nBy (2) and (1).")


def test_a_formula_of_another_page_is_linked_with_the_number_it_has_there() -> None:
    number = labels(stored(PLACE.with_name("3_predicting.ipynb")))["eq:width"]
    assert changed("See {eq}`eq:width`.") == f"See ({number}) of [Predicting the limit](3_predicting.ipynb)."
    assert changed("See {eq}`eq:nowhere`.") == "See {eq}`eq:nowhere`."  # plain to see, and the site's build refuses it


def test_roles_become_links_and_words() -> None:
    assert changed("{doc}`1_geometry`") == "[High-dimensional geometry that one can see](1_geometry.ipynb)"
    assert changed("{doc}`here <../0_foundations/1_sparsity>`") == "[here](../0_foundations/1_sparsity.ipynb)"
    assert changed("{doc}`here </notebooks/0_foundations/1_sparsity>`") == "[here](../0_foundations/1_sparsity.ipynb)"
    assert changed("The {doc}`scoreboard </scoreboard>`") == f"The [scoreboard]({SITE}scoreboard.html)"
    assert (
        changed("{term}`Ritz values <Ritz value>`, {func}`pruning_core.prune`") == "Ritz values, `pruning_core.prune`"
    )
    assert changed('f"{{doc}}`next <1_geometry>` {x}"', "code") == 'f"[next](1_geometry.ipynb) {x}"'
    unpublished = {"cells": [{"cell_type": "markdown", "source": "{doc}`board </scoreboard>`"}]}
    assert plain(unpublished, PLACE)["cells"][0]["source"] == ["board"]


def test_sentences_that_a_run_left_change_too() -> None:
    cell = {"cell_type": "code", "source": "x", "outputs": [{"data": {"text/markdown": ["{doc}`1_geometry`"]}}, {}]}
    first, second = plain({"cells": [cell]}, PLACE)["cells"][0]["outputs"]
    assert first["data"]["text/markdown"] == ["[High-dimensional geometry that one can see](1_geometry.ipynb)"]
    assert second == {}


def test_what_colab_opens_is_plain(tmp_path: Path) -> None:
    for file in colab.write(tmp_path, "pruning-core @ https://example.org/a.zip", site=SITE):
        assert not MYST.search("\n".join("".join(cell["source"]) for cell in stored(file)["cells"]))
