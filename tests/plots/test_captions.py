"""Every figure has words below it and a text in its place that can be listened to."""

import importlib
import inspect
import pkgutil
import re

import pytest

from pruning_core import plots
from pruning_core.plots.captions import CAPTIONS, LONGEST_ALT, shortened
from pruning_core.plots.interactive import SliderFigure
from pruning_core.plots.style import BookFigure, figure, finish, set_caption, show, styled


def drawing_functions() -> set[str]:
    found = set()
    for module in pkgutil.iter_modules(plots.__path__):
        for name, function in vars(importlib.import_module(f"pruning_core.plots.{module.name}")).items():
            here = inspect.isfunction(function) and function.__module__.startswith("pruning_core.plots")
            if here and function.__annotations__.get("return") in (
                BookFigure,
                SliderFigure,
                "BookFigure",
                "SliderFigure",
            ):
                found.add(name)
    return found


def test_every_function_that_draws_has_a_caption_and_no_caption_is_left_over():
    without = {"slider_figure", "set_caption", "finish"}  # told by whoever calls them
    assert set(CAPTIONS) == drawing_functions() - without


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_is_a_sentence_or_three(name):
    words = CAPTIONS[name]
    assert 60 < len(words) < 320
    assert words[0].isupper() or words[0].isdigit()
    assert words.endswith(".")


def drawn(alt):
    fig, _ = figure()
    return finish(fig, None, alt)


def test_a_page_may_give_its_own_caption_and_a_figure_built_on_another_has_its_own(monkeypatch):
    monkeypatch.setitem(CAPTIONS, "inner", "Inner.")
    monkeypatch.setitem(CAPTIONS, "outer", "Outer.")

    @styled
    def inner(words=""):
        return set_caption(drawn("a"), words) if words else drawn("a")

    @styled
    def outer(words=""):
        return inner(words)

    assert (inner().caption, outer().caption) == ("Inner.", "Outer.")
    assert (inner("Mine.").caption, outer("Mine.").caption) == ("Mine.", "Mine.")
    assert "<figcaption>Inner.</figcaption>" in show(inner()).to_html()


def test_a_long_alternative_text_ends_after_a_sentence_and_is_whole_in_the_description():
    long = "One curve rises. " + " ".join(f"At {i} it is {i / 10}." for i in range(60))
    page = show(drawn(long)).to_html()
    (alt,) = re.findall('<img [^>]*alt="([^"]*)"', page)
    assert alt.startswith("One curve rises.") and alt.endswith(".") and len(alt) <= LONGEST_ALT
    (name,) = re.findall('aria-describedby="([^"]*)"', page)
    assert f'<span hidden id="{name}">{long}</span>' in page
    assert "aria-describedby" not in show(drawn("One curve rises.")).to_html()
    assert shortened("no sentence here " * 40).endswith("…")
