"""The front page states what stored rows support, its figure holds them, and the lecturer's table counts what there is."""

import base64
import io
import json
import re
import zipfile

import nbformat
import pytest

import front_page
from pruning_core.book import stored_rows
from pruning_core.book.sentences import Unbacked, supported
from pruning_core.version import REPOSITORY

BOOK = REPOSITORY / "book"


@pytest.fixture(scope="module")
def findings():
    return list(front_page.findings())


def test_there_are_five_findings_and_each_leads_to_its_page(findings):
    assert len(findings) == 5
    for finding in findings:
        (page,) = re.findall(r"\{doc\}`(notebooks/[^`]+)`", finding)
        assert (REPOSITORY / f"{page}.ipynb").is_file()
        assert re.search(r"\d", finding) and finding.startswith("**")


def test_a_finding_that_the_rows_do_not_support_stops_the_build(monkeypatch):
    rows = stored_rows(model="lenet300_snip", data="digits", label="final")
    same = rows.assign(accuracy=rows["accuracy"].where(rows["method"] != "random", 99.0))
    monkeypatch.setattr(front_page, "stored_rows", lambda **_: same)
    with pytest.raises(Unbacked):
        next(front_page.findings())
    with pytest.raises(Unbacked, match="condition 2 of 2"):
        supported("No.", True, False)


def test_the_figure_moves_through_the_stored_sparsities():
    figure, rows = front_page.moving_figure(), stored_rows(model="lenet300_snip", data="digits", label="final")
    assert figure.names == ["50 %", "80 %", "90 %", "95 %", "98 %", "99 %", "99.5 %"]
    assert len(figure.data) == 7 * len(figure.layout["yaxis"]["ticktext"])
    last = figure.data[-figure.per_position :]
    assert [trace["x"][0] for trace in last] == sorted(trace["x"][0] for trace in last)
    random = rows[(rows["method"] == "random") & (rows["asked"] == 0.995)]["accuracy"].mean()
    (dot,) = [trace for trace in last if trace["name"] == "random"]
    assert dot["x"][0] == pytest.approx(random, rel=1e-5)


def test_every_notebook_has_a_line_with_its_exercises():
    lines = front_page.lectures().splitlines()[2:-1]
    places = [re.search(r"<(/notebooks/[^>]+)>", line).group(1) for line in lines]
    notebooks = sorted(REPOSITORY.glob("notebooks/[0-9]*/[0-9]*.ipynb"))
    assert places == [f"/notebooks/{path.parent.name}/{path.stem}" for path in notebooks]
    (scores,) = [line for line in lines if "2_scores_budgets" in line]
    text = "".join("".join(c["source"]) for c in json.loads(notebooks[1].read_text(encoding="utf-8"))["cells"])
    assert scores.split("|")[-3].strip() == str(len(re.findall(r"^check\(", text, re.M))) != "0"
    assert scores.split("|")[-2].strip() == "1"  # the mask function


def test_figures_with_captions_are_packed_with_them(tmp_path, monkeypatch):
    picture = base64.b64encode(b"<svg/>").decode()
    html = f'<figure><img alt="a" src="data:image/svg+xml;base64,{picture}"><figcaption>See &lt;it&gt;.</figcaption></figure>'
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {"text/html": html})])
    plain = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {"text/html": "<img>"})])
    again = nbformat.v4.new_code_cell(outputs=cell.outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, plain, again]), tmp_path / "1_a.ipynb")
    monkeypatch.setattr(
        front_page, "find_notebooks", lambda: [REPOSITORY / "notebooks" / "0_foundations" / "1_sparsity.ipynb"]
    )
    monkeypatch.setattr(front_page, "executed_path", lambda path: tmp_path / "1_a.ipynb")
    front_page.write(tmp_path / "front")
    archive = zipfile.ZipFile(io.BytesIO((tmp_path / "front" / "figures.zip").read_bytes()))
    assert archive.namelist() == [*(f"0_foundations/1_sparsity_{n}.svg" for n in (1, 2)), "captions.txt"]
    assert archive.read("0_foundations/1_sparsity_2.svg") == b"<svg/>"
    assert "0_foundations/1_sparsity_1.svg: See <it>." in archive.read("captions.txt").decode()
    assert "not run" in (tmp_path / "front" / "lectures.md").read_text(encoding="utf-8")


def test_pages_include_what_is_made():
    index, lecturer = ((BOOK / name).read_text(encoding="utf-8") for name in ("index.md", "lecturer.md"))
    assert "front/figure.html" in index and "front/findings.md" in index
    assert "front/lectures.md" in lecturer and "front/figures.zip" in lecturer
    for page in sorted(REPOSITORY.glob("notebooks/[0-9]*/[0-9]*.ipynb")):
        assert f"notebooks/{page.parent.name}/{page.stem}" in index, "a chapter of the front page lacks a page"
