"""Figures: colours that every reader can tell apart, alt texts, and what is drawn equals the rows."""

import base64
import json
import re
import shutil
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pruning_core import plots
from pruning_core.errors import BadInput
from pruning_core.methods.base import METHODS
from pruning_core.plots.style import COLOURS, METHOD_STYLE, NEUTRAL

# Machado et al. (2009), full protanopia and deuteranopia, for linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear(colour):
    c = np.array(mpl.colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    lms = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ np.clip(rgb, 0, 1)
    )
    return (
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ lms
    )


def rows(methods=("magnitude", "random"), seeds=3, sparsities=(0.0, 0.5, 0.9, 0.98)):
    return pd.DataFrame(
        [
            {
                "experiment": f"{m}{s}{p}",
                "method": m,
                "seed": s,
                "asked": p,
                "sparsity": p + (1e-5 * s if p else 0),
                "accuracy": 99 - 20 * p * (1 + i) + s,
                "profile": "quick",
                "device": "a CPU",
                "seconds": 6.0,
            }
            for i, m in enumerate(methods)
            for s in range(seeds)
            for p in sparsities
        ]
    )


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_every_colour_is_visible_on_light_and_dark_pages(page):
    for name, colour in COLOURS.items():
        assert contrast(colour, page) >= 3, name
    assert contrast(NEUTRAL, page) >= 4


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_without_red_green_vision(kind):
    seen = {name: oklab(BLINDNESS[kind] @ linear(c)) for name, c in COLOURS.items()}
    for a, b in combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 0.08, (a, b)


def test_styles_are_unique_and_cover_the_registered_methods():
    pairs = [(s.colour, s.marker) for s in METHOD_STYLE.values()]
    assert len(set(pairs)) == len(pairs)
    own = {name for name in METHODS if type(METHODS[name]).__module__ and not name.startswith("_")}
    packaged = {n for n in own if METHODS[n].__module__.startswith("pruning_core.")}
    assert packaged <= set(METHOD_STYLE), packaged - set(METHOD_STYLE)


def test_unknown_methods_get_a_style_that_depends_on_the_name_only():
    mine = plots.style_of("my_method")
    assert mine == plots.style_of("my_method")
    assert (mine.colour, mine.marker) not in {(s.colour, s.marker) for s in METHOD_STYLE.values()}
    assert plots.style_of("snip-it") == METHOD_STYLE["snip_it"]


def test_accuracy_against_sparsity_draws_means_and_intervals():
    table = rows()
    fig = plots.accuracy_against_sparsity(table, reference=99.0, title="Digits")
    ax = fig.axes[0]
    first = ax.lines[0]
    expected = table[table["method"] == "magnitude"].groupby("asked")["accuracy"].mean()
    np.testing.assert_allclose(first.get_ydata(), expected)
    assert first.get_color() == METHOD_STYLE["magnitude"].colour
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(expected.min() - 4.302652730 / np.sqrt(3), rel=1e-6)
    assert band.max() == 100  # an interval of three seeds reaches beyond what an accuracy can be
    alt = plots.alt_text(fig)
    assert alt.startswith("Digits: test accuracy (%) against weights removed.")
    assert "magnitude from 100 at 0 %" in alt
    assert "3 seeds" in alt


def test_the_sparse_end_is_wide():
    fig = plots.accuracy_against_sparsity(rows(sparsities=(0.0, 0.5, 0.9, 0.99, 0.999)))
    ax = fig.axes[0]
    places = ax.transData.transform([(p, 90) for p in (0.0, 0.9, 0.99, 0.999)])[:, 0]
    steps = np.diff(places)
    assert steps.max() / steps.min() < 1.05  # 0 to 90 %, 90 to 99 %, 99 to 99.9 %: equally far
    fig.canvas.draw()
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert "99.9 %" in labels
    assert "0 %" in labels


@pytest.mark.parametrize("scale", ["kept", "linear"])
def test_one_seed_and_each_scale(scale):
    fig = plots.accuracy_against_sparsity(rows(seeds=1), scale=scale)
    assert "One seed" in plots.alt_text(fig)
    assert plots.show(fig).data


def test_bad_rows_are_refused():
    with pytest.raises(BadInput, match="lack the column 'macs_removed'"):
        plots.accuracy_against_sparsity(rows(), x="macs_removed")
    with pytest.raises(BadInput, match="no row with a value"):
        plots.accuracy_against_sparsity(rows().assign(accuracy=np.nan))
    with pytest.raises(BadInput, match=r"must lie in \[0, 1\)"):
        plots.accuracy_against_sparsity(rows(sparsities=(0.5, 1.0), seeds=1))
    with pytest.raises(BadInput, match="unknown scale 'log'"):
        plots.accuracy_against_sparsity(rows(), scale="log")


def test_stamp_counts_each_experiment_once():
    fig, _ = plots.figure()
    twice = pd.concat([rows(seeds=1, methods=("snip",)), rows(seeds=1, methods=("snip",)).assign(seconds=1.0)])
    assert plots.stamp(fig, twice) == "profile quick · 1 seed · a CPU · 0.4 min"
    assert "no record" in plots.stamp(fig, pd.DataFrame())


def test_show_carries_the_alt_text_and_no_background():
    fig, axes = plots.figure()
    axes[0, 0].plot([0, 1])
    with pytest.raises(ValueError, match="no alt text"):
        plots.show(fig)
    html = plots.show(fig, alt='a "line" & more')._repr_mimebundle_()["text/html"]
    assert 'alt="a &quot;line&quot; &amp; more"' in html
    svg = base64.b64decode(re.search(r"base64,([^\"]+)", html).group(1)).decode()
    assert "fill: #ffffff" not in svg
    assert NEUTRAL in svg
    plots.set_alt(fig, "a line")
    assert fig._repr_mimebundle_()["text/plain"] == "a line"  # a figure as the last line of a cell shows itself
    plain = Figure()
    plain.subplots().plot([0, 1])
    assert plots.show(plain, alt="x").alt == "x"


def test_same_rows_same_file():
    a, b = (plots.show(plots.accuracy_against_sparsity(rows())).data for _ in range(2))
    assert a == b


def slider(**more):
    x = np.linspace(0, 1, 5)
    positions = {f"b = {b}": {"rni": (x, x * b), "slimming": (x, x)} for b in range(3)}
    return plots.slider_figure(positions, control="shift b", x_label="g", y_label="R", alt="Lines.", **more)


def test_slider_is_self_contained():
    html = slider().to_html()
    assert "http" not in html
    assert 'aria-label="Lines."' in html
    assert html.count("<script") == 1
    spec = slider().to_plotly()
    json.dumps(spec, allow_nan=False)
    assert [t["visible"] for t in spec["data"]] == [True, True, False, False, False, False]
    assert [s["label"] for s in spec["layout"]["sliders"][0]["steps"]] == ["b = 0", "b = 1", "b = 2"]
    assert spec["layout"]["sliders"][0]["steps"][1]["args"][0]["visible"] == [False] * 2 + [True] * 2 + [False] * 2


def test_the_outer_bars_of_a_slider_are_whole():
    bars = {"one": {"a": ([1, 2, 4], [1, 2, 3]), "b": ([1, 2, 4], [3, 2, 1])}}
    look = {"control": "c", "x_label": "x", "y_label": "y", "alt": "Bars.", "mode": "bars"}
    assert plots.slider_figure(bars, **look).layout["xaxis"]["range"] == [0.5, 4.5]
    assert plots.slider_figure({"one": {"a": ([3], [1])}}, **look).layout["xaxis"]["range"] == [2.5, 3.5]
    assert plots.slider_figure(bars, x_range=(0, 9), **look).layout["xaxis"]["range"] == [0, 9]


def test_slider_refuses_what_it_cannot_draw():
    x = [0.0, 1.0]
    options = {"control": "c", "x_label": "x", "y_label": "y"}
    with pytest.raises(BadInput, match="at least one position"):
        plots.slider_figure({}, alt="a", **options)
    with pytest.raises(BadInput, match="alt text"):
        plots.slider_figure({"0": {"rni": (x, x)}}, alt=" ", **options)
    with pytest.raises(BadInput, match="the same curves"):
        plots.slider_figure({"0": {"rni": (x, x)}, "1": {"l1": (x, x)}}, alt="a", **options)
    with pytest.raises(BadInput, match="finite"):
        plots.slider_figure({"0": {"rni": (x, [0, np.nan])}}, alt="a", **options)
    with pytest.raises(BadInput, match="logarithmic"):
        plots.slider_figure({"0": {"rni": (x, x)}}, alt="a", x_log=True, **options)
    with pytest.raises(BadInput, match="start=3"):
        slider(start=3)


@pytest.mark.site
def test_slider_moves_in_a_browser_beside_require_js(tmp_path: Path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    plotly = pytest.importorskip("plotly")
    library = tmp_path / "_static" / "lib" / "plotly.min.js"
    library.parent.mkdir(parents=True)
    code = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    # the worst case: a build that prefers an AMD loader over becoming a global
    trap = ";if(typeof define==='function'&&define.amd){define([],function(){});delete window.Plotly}"
    library.write_text(code + trap, encoding="utf-8")
    loader = "window.calls=0;function define(){window.calls+=1};define.amd={};"
    page_file = tmp_path / "deep" / "page.html"
    page_file.parent.mkdir()
    page_file.write_text(
        f'<html data-content_root="../"><body><script>{loader}</script>{slider().to_html()}</body></html>',
        encoding="utf-8",
    )
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(page_file.as_uri())
        page.wait_for_selector("input:not([disabled])", timeout=20_000)
        page.locator("input").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("output").inner_text() == "b = 1"
        page.wait_for_function(
            "document.querySelector('.plot').data.map(t => t.visible).join() === 'false,false,true,true,false,false'"
        )
        assert page.evaluate("[window.calls, !!define.amd]") == [0, True]
        assert errors == []
        browser.close()
