"""Every method has a page: what it is, an example that was run, its parameters in words, a picture, its chapters."""

import ast
import importlib
import inspect
import re

import pandas as pd
import pytest
import yaml

import method_pages
import pruning_core as pc
import publishing
from pruning_core.errors import BadInput
from pruning_core.plots import catalogue, show
from pruning_core.version import REPOSITORY

SEVERAL = ["magnitude", "snip", "rni", "ucs"]  # nothing but the network; labels; a penalty and layers; layers alone


@pytest.mark.parametrize("name", sorted(pc.METHODS))
def test_every_parameter_is_explained_and_its_values_are_listed(name):
    rows = method_pages.parameters(pc.METHODS[name])
    assert [row for row in rows if not all(row[:2]) or len(row[3].split()) < 3] == []
    assert [row[0] for row in rows if not row[2]] == []


@pytest.mark.parametrize("name", sorted(pc.METHODS))
def test_the_example_names_its_method_and_gives_what_it_needs(name):
    code, method = method_pages.example(name), pc.METHODS[name]
    ast.parse(code)
    assert f'pc.prune(network, "{name}", 0.7' in code
    assert ("batches=" in code) == (method.needs in ("inputs", "labels"))
    assert ("penalty=" in code) == (method.penalty is not pc.Method.penalty)
    assert max(map(len, code.splitlines())) <= 120


def pages_of(names, monkeypatch):
    monkeypatch.setattr(method_pages, "names", lambda: names)
    return dict(method_pages.made())


def test_pages_hold_what_the_examples_gave(monkeypatch):
    files = pages_of(SEVERAL, monkeypatch)
    assert sorted(files) == sorted(
        ["catalogue.md", *(f"catalogue/{n}{end}" for n in SEVERAL for end in (".md", ".svg", "_small.svg"))]
    )
    for name in SEVERAL:
        page = files[f"catalogue/{name}.md"]
        (printed,) = re.findall(r"```text\n(.*?)```", page, re.S)
        assert printed.startswith(f"{name}: asked 70.00%") and re.search(r"test accuracy \d+\.\d %\n$", printed)
        assert list(re.findall(r"^## (.+)$", page, re.M)) == [
            "Formula", "Example", "Parameters", "Where the book uses it",
        ]  # fmt: skip
        assert f"\n:link: catalogue/{name}\n" in files["catalogue.md"]
        assert max(map(len, re.findall(r"^:alt: (.+)$", page, re.M))) < 200


@pytest.mark.slow
def test_every_example_runs(monkeypatch):
    files = pages_of(sorted(pc.METHODS), monkeypatch)
    assert len(files) == 3 * len(pc.METHODS) + 1


def test_a_share_kept_is_counted_by_layer_and_by_tenth():
    result, network, _ = method_pages.ran("magnitude")
    rows = method_pages.kept("magnitude", result, network)
    tenths = rows[rows["panel"] == catalogue.SIZES]
    assert tenths["place"].tolist() == method_pages.TENTHS
    assert tenths["kept"].tolist() == [0.0] * 7 + [1.0] * 3  # magnitude keeps the largest three tenths and nothing else
    layers = rows[rows["panel"] != catalogue.SIZES]["kept"].to_numpy()
    assert layers == pytest.approx(1 - result.report.layers["sparsity"].to_numpy(float))


def test_keys_of_the_bibliography_are_cited_and_not_shown():
    bib = (REPOSITORY / "book" / "references.bib").read_text(encoding="utf-8")
    keys = "|".join(re.findall(r"^@\w+\{(\w+),", bib, re.M))
    pages = {name: method_pages.page(name, "", "", []) for name in pc.METHODS}
    assert {name: found for name, text in pages.items() if (found := re.findall(rf"(?<!`)\b(?:{keys})\b", text))} == {}
    assert ":cite:p:`wolfe2022ispasp`" in pages["weight_product"]


def test_chapters_that_use_a_method_are_found_by_its_name_and_its_class():
    found = method_pages.pages_that_use()
    assert any(place == "/notebooks/4_snip/2_weights" for place, _ in found["snip"])
    known = {f"/notebooks/{path.parent.name}/{path.stem}" for path in REPOSITORY.glob("notebooks/*/*.ipynb")}
    assert {place for pages in found.values() for place, _ in pages} <= known


def test_the_contents_list_the_gallery_and_edits_lead_to_the_code():
    parts = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    (gallery,) = [page for part in parts for page in part["chapters"] if page.get("file") == "catalogue"]
    assert gallery["sections"] == [{"glob": "catalogue/*"}]
    for name in pc.METHODS:
        assert (REPOSITORY / publishing.source_of(f"catalogue/{name}", ".md")).is_file()


def test_nothing_is_run_again_for_unchanged_sources(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        method_pages, "made", lambda: calls.append(1) or [("catalogue/a.md", "page"), ("catalogue.md", "all")]
    )
    method_pages.write(tmp_path)
    method_pages.write(tmp_path)
    assert calls == [1] and (tmp_path / "catalogue" / "a.md").read_text(encoding="utf-8") == "page"


def rows():
    panels = {"by layer": ["layer 1", "layer 2"], catalogue.SIZES: ["0-50 %", "50-100 %"]}
    return pd.DataFrame(
        {"panel": panel, "method": method, "place": place, "kept": kept}
        for method, shares in (("snip", (0.25, 0.75)), ("random", (0.5, 0.5)))
        for panel, places in panels.items()
        for place, kept in zip(places, shares, strict=True)
    )


def test_a_picture_has_its_method_in_colour_above_the_grey_ones():
    fig = catalogue.kept_by(rows(), method="snip")
    grey, own = fig.axes[1].lines
    assert own.get_ydata().tolist() == [0.25, 0.75] and grey.get_ydata().tolist() == [0.5, 0.5]
    assert own.get_color() != grey.get_color() and "SNIP keeps 25 % of the smallest tenth, 75 % of" in fig.alt
    small = catalogue.kept_by(rows(), method="snip", thumbnail=True)
    assert len(small.axes) == 1 and len(show(small).data) < 20_000
    with pytest.raises(BadInput, match="no row of 'snap'"):
        catalogue.kept_by(rows(), method="snap")


def displayed(name):
    """The formulas that stand on lines of their own in the docstring of a method's file, as text."""
    text = inspect.cleandoc(importlib.import_module(f"pruning_core.methods.{name}").__doc__)
    blocks = re.split(r"\n\n(?=    )", text)[1:]
    parts = [re.split(r"\n\n?(?=\S)", block)[0] for block in blocks]
    return ["".join(parts)] if name in ("rni", "norms") else parts


@pytest.mark.parametrize("name", sorted({m.__module__.rpartition(".")[2] for m in pc.METHODS.values()}))
def test_a_formula_in_tex_is_the_one_of_the_docstring(name):
    """As far as a test can tell: as many, with the same numbers in them."""
    tex, text = method_pages.FORMULAS[name], displayed(name)
    assert len(tex) == max(len(text), 1)
    for one, other in zip(tex, text, strict=False):
        spelt = one.replace("10^{-8}", "1e-8").replace("\\tfrac{d}{2}", "d/2")
        assert numbers(spelt) >= numbers(other)
    for formula in tex:
        assert formula.count("{") == formula.count("}")
        assert formula.count("\\left") == formula.count("\\right") and formula.count(r"\begin") == formula.count(
            r"\end"
        )
    assert set(method_pages.FORMULAS) == {m.__module__.rpartition(".")[2] for m in pc.METHODS.values()}


def numbers(formula):
    """The numbers of a formula; years of papers beside it are none."""
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-\d+)?", re.sub(r"al\. \d{4}", "", formula)))


@pytest.mark.parametrize("name", sorted(pc.METHODS))
def test_no_page_shows_a_formula_as_code(name):
    section = method_pages.page(name, "", "", []).partition("## Formula")[2].partition("## Example")[0]
    assert ".. math::" in section and not re.search(r"^::$", section, re.M)


def test_a_formula_takes_the_place_of_its_text():
    text = "A method.\n\n::\n\n    a = b\n\n    c = d\n\nMore.\n\n::\n\n    e\n\nEnd."
    assert method_pages.typeset(text, ["A", "E\nF"]) == (
        "A method.\n\n.. math::\n\n    A\n\nMore.\n\n.. math::\n\n    E\n    F\n\nEnd."
    )
    assert method_pages.typeset("A method.\n\nMore.", ["A"]) == "A method.\n\n.. math::\n\n    A\n\n\nMore."
