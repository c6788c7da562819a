"""A figure with a knob: pictures where nobody can move it, a panel that computes again where somebody can."""

import asyncio
import re

import pandas as pd
import pytest

from pruning_core import plots
from pruning_core.errors import BadInput, BadType
from pruning_core.plots import knobs
from pruning_core.progress import STILL


@pytest.fixture
def drawn():
    return []


@pytest.fixture
def panel(drawn):
    def draw(drop):
        drawn.append(drop)
        if drop > 15:
            raise BadInput("nothing is left <below> zero.")
        rows = [{"method": "snip", "seed": 0, "sparsity": p, "accuracy": 99 - drop * p} for p in (0.5, 0.9)]
        figure = plots.accuracy_against_sparsity(pd.DataFrame(rows))
        return plots.set_caption(figure, "Turn <it> up.")

    return plots.live(draw, [1, 5, 12], control="drop <in points>", step=0.5)


def test_a_page_shows_one_picture_for_each_value_and_hides_all_but_the_first(panel, drawn, monkeypatch):
    monkeypatch.setenv(STILL, "1")
    page = panel._repr_mimebundle_()["text/html"]
    assert drawn == [1, 5, 12]
    images = re.findall(r"<img [^>]*>", page)
    assert ["hidden " in image for image in images] == [False, True, True]
    assert 'min="0" max="2"' in page and '["1","5","12"]' in page
    assert "<figcaption>Turn &lt;it&gt; up.</figcaption>" in page and "drop &lt;in points&gt;" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


def test_in_a_notebook_the_knob_computes_once_when_it_comes_to_rest(panel, drawn, monkeypatch):
    monkeypatch.delenv(STILL, raising=False)
    monkeypatch.setattr(knobs, "WAIT", 0.02)
    slider, picture = panel.widget().children
    assert (slider.min, slider.max, slider.step, slider.value) == (1, 12, 0.5, 1)
    before = picture.value

    async def move():
        for value in (2.0, 3.5, 4.0):
            slider.value = value
        await asyncio.sleep(0.1)

    asyncio.run(move())
    assert drawn == [1, 4.0]
    assert picture.value != before and "<img" in picture.value
    assert "application/vnd.jupyter.widget-view+json" in str(panel._repr_mimebundle_())


def test_what_the_package_refuses_stands_in_place_of_the_figure(panel, monkeypatch):
    monkeypatch.setattr(knobs, "WAIT", 0.0)
    panel.values.append(20)
    slider, picture = panel.widget().children

    async def move():
        slider.value = 18
        await asyncio.sleep(0.05)

    asyncio.run(move())
    assert picture.value == "<p>nothing is left &lt;below&gt; zero.</p>"


def test_whole_numbers_get_a_slider_of_whole_numbers():
    seen = []
    figure = plots.accuracy_against_sparsity(
        pd.DataFrame([{"method": "snip", "seed": 0, "sparsity": p, "accuracy": 9.0} for p in (0.5, 0.9)])
    )
    panel = plots.live(lambda n: seen.append(n) or figure, [2, 4, 8], control="draws", step=2)
    slider, _ = panel.widget().children
    assert type(slider).__name__ == "IntSlider" and seen == [2]


@pytest.mark.parametrize("values", [[], [1], 3, "12", [1, float("nan")]])
def test_values_that_make_no_knob_are_refused(values):
    with pytest.raises((BadInput, BadType)):
        plots.live(lambda value: None, values, control="x")


def test_a_panel_may_begin_in_the_middle(panel, monkeypatch):
    begun = plots.live(panel.draw, [1, 5, 12], control="drop", start=1)
    page = begun.to_html()
    assert ["hidden " in image for image in re.findall(r"<img [^>]*>", page)] == [True, False, True]
    assert 'value="1"' in page and ">5</output>" in page
    assert begun.widget().children[0].value == 5
    for wrong in (3, -1, 0.5):
        with pytest.raises((BadInput, BadType)):
            plots.live(panel.draw, [1, 5, 12], control="drop", start=wrong)
