"""Curves, bars and maps from any rows: what is drawn is what the rows say, and so is the text in its place."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from pruning_core import plots
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import mean_interval
from pruning_core.plots.style import NEUTRAL, SERIES, style_of

TIMES = pd.DataFrame(
    [
        {"quantity": q, "steps": m, "probes": n, "error": e / (m * n), "seed": 0}
        for q in ("G", "mean")
        for m in (2, 8)
        for n in (1, 4)
        for e in (1, 2, 3, 4, 100)
    ]
)
ROWS = pd.DataFrame(
    {"method": m, "asked": p, "seed": s, "sparsity": p, "accuracy": 99 - 50 * p + s, "training_macs": 1e9 * (1 - p) + s}
    for m in ("snap", "random_channels")
    for p in (0.5, 0.9)
    for s in range(3)
)


def curves(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def edges(ax, i=0):
    return ax.collections[i].get_paths()[0].vertices[:, 1]


def test_means_over_seeds_lie_in_their_intervals_and_several_rows_of_a_seed_are_one():
    twice = pd.concat([ROWS, ROWS[ROWS["seed"] == 2].assign(accuracy=lambda r: r["accuracy"] + 1)])
    ax = plots.chart(twice, "sparsity", "accuracy").axes[0]
    at_half = [74.0, 75.0, 76.5]
    assert curves(ax)["SNAP"][0] == pytest.approx([0.5, np.mean(at_half)])
    interval = mean_interval(at_half)
    band = ax.collections[0].get_paths()[0].vertices
    assert sorted({round(y, 9) for x, y in band if x == 0.5}) == pytest.approx([interval.low, interval.high])


def test_bands_end_where_a_quantity_ends():
    wide = ROWS.assign(accuracy=ROWS["accuracy"] + 40 * (ROWS["seed"] - 1), attack_success=0.5 * ROWS["seed"])
    assert edges(plots.chart(wide, "sparsity", "accuracy").axes[0]).max() == 100
    band = edges(plots.chart(wide, "sparsity", "attack_success").axes[0])
    assert (band.min(), band.max()) == (0, 1)
    narrow = ROWS.assign(seconds=[1.0, 9.0, 2.0] * 4)
    assert edges(plots.chart(narrow, "sparsity", "seconds", log="y").axes[0]).min() == pytest.approx(
        2
    )  # half of the mean


def test_panels_hold_medians_in_a_band_over_the_middle_of_the_rows():
    fig = plots.chart(
        TIMES, "steps", "error", "probes", panels="quantity", middle="median", band=50, log="xy", title="t"
    )
    left, right = fig.axes
    assert (left.get_title(), right.get_title()) == ("G", "mean")
    assert set(curves(left)) == {"probes = 1", "probes = 4"}
    assert curves(right)["probes = 4"] == pytest.approx(np.array([[2, 3 / 8], [8, 3 / 32]]))
    assert (edges(left).min(), edges(left).max()) == pytest.approx((2 / 8, 4 / 2))
    assert left.get_ylim() == right.get_ylim() and left.get_yscale() == "log"
    assert fig.alt.startswith("t: relative error against Lanczos steps. G, probes = 1 from 1.5 at 2 to 0.375 at 8")
    apart = plots.chart(TIMES, "steps", "error", "probes", panels="quantity", band=0, sharey=False, columns=1)
    assert [ax.get_subplotspec().colspan.start for ax in apart.axes] == [0, 0] and not apart.axes[0].collections


def test_several_columns_have_a_panel_each_with_the_own_run_in_it():
    mine = ROWS.assign(accuracy=50.0)
    fig = plots.chart(ROWS, "sparsity", ["accuracy", "training_macs"], mine=mine, points="beside")
    assert [ax.get_ylabel() for ax in fig.axes] == ["test accuracy (%)", "multiply-accumulates of training"]
    own = [line for line in fig.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [line.get_ydata().tolist() for line in own] == [[50, 50]] * 2
    dots = np.asarray(fig.axes[0].collections[0].get_offsets())
    assert sorted(dots[:, 1].tolist()) == sorted(ROWS[ROWS["method"] == "snap"]["accuracy"].tolist())


def test_rows_that_asked_for_the_same_are_one_point_at_their_mean():
    (first, second) = curves(plots.chart(ROWS, "training_macs", "accuracy", at="asked", log="x").axes[0])["SNAP"]
    assert first == pytest.approx([1e8 + 1, 55]) and second == pytest.approx([5e8 + 1, 75])


def test_what_frames_the_curves_stands_where_it_was_asked_for():
    rows = pd.DataFrame(
        [
            {"order": o, "batch_size": b, "tolerance": scale * t / math.sqrt(b)}
            for o, scale in (("shuffled", 1), ("fixed", 2))
            for b in (16, 64)
            for t in (1, 2, 6)
        ]
    )
    look = {"levels": {"least": 0.2}, "marks": {"fixed": 32, "here": 20}, "guides": {"promised": ([16, 64], [1, 2])}}
    fig = plots.chart(
        rows,
        "batch_size",
        "tolerance",
        "order",
        middle="median",
        band=100,
        log="xy",
        slope=-0.5,
        dashed=["fixed"],
        **look,
    )
    (ax,) = fig.axes
    drawn = curves(ax)
    assert drawn["shuffled"] == pytest.approx(np.array([[16, 0.5], [64, 0.25]]))
    assert drawn["slope −1/2"] == pytest.approx(0.85 * drawn["shuffled"] + 0.15 * drawn["shuffled"] * [1, 0])
    assert drawn["promised"].tolist() == [[16, 1], [64, 2]]
    upright = {line.get_xdata()[0]: line.get_color() for line in ax.lines if len(set(line.get_xdata())) == 1}
    assert upright == {32: SERIES[1], 20: NEUTRAL}
    assert {text.get_text() for text in ax.texts} == {"least", " here"}
    assert [line.get_linestyle() for line in ax.lines if line.get_label() in ("shuffled", "fixed")] == ["-", "--"]
    assert (edges(ax).min(), edges(ax).max()) == pytest.approx((1 / 8, 6 / 4))


def test_single_points_and_what_is_zero_on_a_logarithmic_axis():
    rows = pd.DataFrame({"inputs": ["raw", "raw", "normalised"], "percentile": [1, 3, 3], "norm": [0.0, 0.02, 0.5]})
    fig = plots.chart(rows, "percentile", "norm", "inputs", points="only", log="y")
    raw, normalised = (np.asarray(c.get_offsets()) for c in fig.axes[0].collections)
    assert raw == pytest.approx(np.array([[1, 0.01], [3, 0.02]])) and normalised.tolist() == [[3, 0.5]]
    assert "raw 2 points, median 0.015" in fig.alt
    assert not [line for line in fig.axes[0].lines if len(line.get_xdata())]


def test_words_on_an_axis_keep_their_order_and_a_removed_fraction_may_lie_upwards():
    rows = pd.DataFrame({"method": "snip", "layer": ["fc2", "fc1"], "density": [0.5, 0.1]})
    fig = plots.chart(rows, "layer", "density")
    fig.canvas.draw()
    assert [text.get_text() for text in fig.axes[0].get_xticklabels()] == ["fc2", "fc1"]
    assert "from 50 % at fc2 to 10 % at fc1" in fig.alt
    steps = pd.DataFrame({"schedule": "linear", "round": [0, 1, 2], "removed": [0.0, 0.9, 0.99]})
    ax = plots.chart(steps, "round", "removed", "schedule", kept="y").axes[0]
    heights = ax.transData.transform([(0, 0.0), (0, 0.9), (0, 0.99)])[:, 1]
    assert np.diff(heights)[0] == pytest.approx(np.diff(heights)[1])


def test_many_curves_have_their_legend_outside_and_one_has_none():
    many = pd.concat([ROWS.assign(method=f"m{i}") for i in range(7)])
    fig = plots.chart(many, "sparsity", "accuracy")
    assert fig.axes[0].get_legend() is None and len(fig.legends[0].get_texts()) == 7
    one = plots.chart(ROWS[ROWS["method"] == "snap"], "sparsity", "accuracy", caption="See.")
    assert one.axes[0].get_legend() is None and not one.legends and one.caption == "See."


def test_charts_refuse_what_they_cannot_draw():
    with pytest.raises(BadInput, match="lack the column 'loss'"):
        plots.chart(ROWS, "sparsity", "loss")
    with pytest.raises(BadInput, match="no row to draw"):
        plots.chart(ROWS[:0], "sparsity", "accuracy")
    with pytest.raises(BadInput, match="no row with a value of 'accuracy'"):
        plots.chart(ROWS.assign(accuracy=np.nan), "sparsity", "accuracy")


def test_bars_are_means_with_their_intervals_and_medians_with_quartiles():
    rows = pd.DataFrame(
        {"cut": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "weights": [0.2, 0.4, 0.5, 0.5], "macs": 0.1}
    )
    fig = plots.bars(rows, "cut", {"weights": "of all", "macs": "MACs"})
    (ax,) = fig.axes
    assert [[round(bar.get_width(), 9) for bar in group] for group in ax.containers] == [[0.3, 0.5], [0.1, 0.1]]
    reach = [x for line in ax.lines for x in line.get_xdata()]
    assert (np.nanmin(reach), np.nanmax(reach)) == pytest.approx(mean_interval([0.2, 0.4])[1:3])
    assert "a: 30 % of all, 10 % MACs" in fig.alt and ax.get_xlim() == (0, 1)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["of all", "MACs"]
    times = pd.DataFrame({"label": ["whole"] * 5, "ms": [1.0, 2.0, 3.0, 4.0, 100.0]})
    fig = plots.bars(times, "label", "ms", middle="median", band=50)
    (bar,) = fig.axes[0].patches
    assert bar.get_width() == 3 and "whole: 3" in fig.alt and not fig.legends
    reach = [x for line in fig.axes[0].lines for x in line.get_xdata()]
    assert (min(reach), max(reach)) == (2, 4)


def test_bars_of_methods_have_their_colours_and_a_logarithmic_axis_an_end():
    kept = pd.DataFrame(
        {"layer": ["fc1", "fc2"] * 2, "method": ["random"] * 2 + ["snip"] * 2, "density": [0.1, 0.1, 0.02, 0.0]}
    )
    fig = plots.bars(kept, "layer", "density", "method", log=True, numbers=True)
    groups = fig.axes[0].containers
    assert [[bar.get_width() for bar in group] for group in groups] == [
        pytest.approx([0.1, 0.1]),
        pytest.approx([0.02, 1e-4]),
    ]
    for group, method in zip(groups, ("random", "snip"), strict=True):
        assert all(same_color(bar.get_facecolor(), style_of(method).colour) for bar in group)
    assert "fc2: 10 % random, 0 % SNIP" in fig.alt
    with pytest.raises(BadInput, match="no row with a value"):
        plots.bars(kept.assign(density=np.nan), "layer", "density")


def test_maps_share_the_scale_of_their_row_and_say_where_most_is():
    rows = pd.DataFrame(
        {"method": m, "asked": p, "row": i, "column": j, "kept": (1 - p) * (i + 2 * j) * (m == "snip")}
        for m in ("random", "snip")
        for p in (0.5, 0.9)
        for i in range(2)
        for j in range(3)
    )
    fig = plots.maps(rows, "column", "row", "kept", down="asked", chosen=["snip", "random"], title="t")
    maps = [ax for ax in fig.axes if ax.get_xlabel() == "column"]
    assert [ax.get_title() for ax in maps[:2]] == ["SNIP, 50 %", "random, 50 %"]
    assert [ax.collections[0].get_clim() for ax in maps] == [(0, 2.5)] * 2 + [(0, pytest.approx(0.5))] * 2
    assert np.asarray(maps[0].collections[0].get_array()).ravel().tolist() == [0, 1, 2, 0.5, 1.5, 2.5]
    assert "SNIP, 50 %: 125 % in the mean, most (250 %) at 2, 1" in fig.alt
    with pytest.raises(BadInput, match="no row of 'snap'"):
        plots.maps(rows, "column", "row", "kept", chosen=["snap"])
