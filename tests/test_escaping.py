"""Names that a user chooses reach pages as text: layers, claims, labels, data sets and settings, wherever HTML is built."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch
from markdown_it import MarkdownIt
from torch import nn

import pruning_core as pc
from pruning_core import plots
from pruning_core.book import claims, text_table
from pruning_core.book.claims import page
from pruning_core.book.claims.ledger import load_claims
from pruning_core.book.notebooks import page_stamp
from pruning_core.commands import book as commands
from pruning_core.commands import main
from pruning_core.masks.reports import Report
from pruning_core.official import write_results
from pruning_core.version import PACKAGE, REPOSITORY

EVIL = "<script>alert('&')</script><img src=x onerror=\"alert(1)\"> <!--<script> | $x$"
LEDGER = load_claims(REPOSITORY / "book" / "claims.yml")


class Tags(HTMLParser):
    """All tags of a fragment that came from a name: those that our own HTML has no reason to hold."""

    def __init__(self, text: str, scripts: int = 0):
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        assert self.names.count("script") == scripts
        assert "onerror" not in self.attributes

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def test_report_of_a_network_with_such_names():
    network = nn.Sequential()
    network.add_module("<b>layer", nn.Linear(4, 4))
    network.add_module("<i onerror=1>norm", nn.LayerNorm(4))
    result = pc.prune(network, "magnitude", 0.5, example_input=torch.zeros(1, 4))
    found = Tags(result._repr_html_())
    assert not {"b", "i"} & set(found.names)
    assert "<b>layer" in found.text


def test_report_escapes_every_field_that_is_text():
    row = (EVIL, 4, 2, 0.5, 2, 1, 0, 0)
    report = Report(EVIL, 0.5, "weights", {"weights": (2, 4)}, (row,), {EVIL: EVIL}, (EVIL,), EVIL)
    found = Tags(report._repr_html_())
    assert found.text.count("alert('&')") == 6
    assert "img" not in found.names


def test_table_of_claims(monkeypatch):
    evil = replace(LEDGER[0], statement=EVIL)
    monkeypatch.setattr(page, "load_claims", lambda path: [evil])
    found = Tags(claims.side_by_side(evil.paper).to_html())
    assert "img" not in found.names
    assert EVIL in found.text


def test_scoreboard_page():
    evil = replace(LEDGER[0], statement=EVIL, where=EVIL, title=EVIL, note=EVIL)
    text = page.to_markdown(page.scoreboard(pc.records.load(), [evil]))
    found = Tags(MarkdownIt().render(text))
    assert "img" not in found.names
    assert found.text.count("alert('&')") >= 4


def test_table_of_costs(monkeypatch, capsys):
    row = {"profile": "quick", "model": EVIL, "data": EVIL, "device": "cpu", "seconds": 1.0, "experiment": "e"}
    monkeypatch.setattr(commands.records, "load", lambda: pd.DataFrame([row]))
    assert main(["costs"]) == 0
    table = capsys.readouterr().out
    found = Tags(MarkdownIt().enable("table").render(table))
    assert "img" not in found.names
    assert found.names.count("td") == 6, "a name with a bar must not open a column"


def test_stamp_of_a_page():
    found = Tags(page_stamp("quick", {"seed": 0, "seeds": [EVIL]}, {}, 60.0))
    assert found.names == ["p"]
    assert EVIL in found.text


def test_card_of_a_network_with_such_names(tmp_path):
    network = nn.Sequential()
    network.add_module("`" + EVIL.replace(".", ""), nn.LayerNorm(4))
    network.add_module("fc", nn.Linear(4, 4))
    pc.prune(network, "magnitude", 0.5).save_card(
        tmp_path / "README.md", name=EVIL, dataset=EVIL, metric=EVIL, licence="`" + EVIL, before=1.0, after=1.0
    )
    body = (tmp_path / "README.md").read_text().split("---\n", 2)[2]
    found = Tags(MarkdownIt().enable("table").render(body))
    assert "img" not in found.names
    assert found.text.count("alert('&')") == 4


def test_report_of_a_run_whose_rows_have_such_names(tmp_path):
    rows = {
        "label": EVIL,
        "method": EVIL,
        "seed": [0, 1],
        "asked": 0.5,
        "sparsity": 0.5,
        "accuracy": 90.0,
        "revision": EVIL,
    }
    report = write_results(pd.DataFrame(rows), tmp_path / "out", EVIL.replace("$", ""), [])
    found = Tags(MarkdownIt().enable("table").render(report.read_text()))
    assert found.names.count("img") == 1, "the figure, and nothing else"
    assert found.text.count("alert('&')") == 4
    assert found.names.count("tr") == 2


def test_pictures_behind_a_knob():
    def draw(value):
        figure, _ = plots.figure()
        plots.set_alt(figure, EVIL)
        return plots.set_caption(figure, EVIL)

    live = plots.live(draw, [1, 2], control=EVIL)
    found = Tags(live.to_html(), scripts=1)
    assert found.names.count("img") == 2
    assert found.text.count("alert('&')") >= 2


def test_slider():
    position = {EVIL: ([0, 1], [0, 1])}
    words = {"control": EVIL, "x_label": EVIL, "y_label": EVIL, "title": EVIL, "alt": EVIL}
    slider = plots.slider_figure({EVIL: position, "b": position}, **words)
    slider.caption = EVIL
    text = slider.to_html()
    assert "img" not in Tags(text, scripts=1).names
    call = text.rpartition("pruningSlider(")[2].removesuffix("</script></figure>")
    assert "<" not in call, "no label may end the script, or open a comment in it"
    spec = json.JSONDecoder().raw_decode(call[call.index("{") :])[0]
    assert spec["layout"]["xaxis"]["title"]["text"] == EVIL


@pytest.mark.parametrize("index", [True, False])
def test_table_of_words(index):
    table = pd.DataFrame({EVIL: [EVIL, EVIL, EVIL]}, index=[EVIL, "b", "b"])
    for shown in (table, table[EVIL]):
        known = {"style", "table", "thead", "tbody", "tr", "th", "td"}
        assert set(Tags(text_table(shown, index=index).to_html()).names) <= known


def test_picture():
    figure, axes = plots.figure()
    axes[0, 0].set_title(EVIL.replace("$", ""))
    found = Tags(plots.show(figure, alt=EVIL).to_html())
    assert found.names == ["style", "img"]
    long = plots.set_caption(figure, EVIL)
    assert Tags(plots.show(long, alt=EVIL * 30).to_html()).names == ["style", "figure", "span", "img", "figcaption"]


HTML = re.compile(r"""["'](?:[^"'\n]*)<(?:a|b|br|details|div|i|img|li|p|script|span|style|summary|table|td|ul)\b[^=]""")


@pytest.mark.parametrize("kind", ["tags", "styled tables"])
def test_no_other_file_of_the_package_builds_html(kind):
    """A new place that does is to be thrown such names here, too."""
    pattern = HTML if kind == "tags" else re.compile(r"\.style\.(hide|format)|to_html\(")
    files = {str(Path(f).relative_to(PACKAGE)) for f in PACKAGE.rglob("*.py") if pattern.search(f.read_text("utf-8"))}
    tested = {"masks/reports.py", "book/text_tables.py", "plots/interactive.py", "plots/knobs.py", "plots/style.py"}
    others = {"book/claims/page.py", "book/notebooks.py", "records/markdown.py"}
    assert files == (tested | others if kind == "tags" else tested)
