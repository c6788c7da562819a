"""Stored curves with the reader's own run on top, and differences about zero: what is drawn is what the rows say."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from pruning_core import plots
from pruning_core.book import gaps
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import Interval, mean_interval
from pruning_core.plots.axes import apart
from pruning_core.plots.style import NEUTRAL, style_of


def rows(methods=("pfp", "l1_norm", "random_channels"), seeds=3, drop=10.0):
    return pd.DataFrame(
        {"method": m, "seed": s, "asked": p, "sparsity": p + 0.001 * s, "accuracy": 90 - drop * p * (i + 1) + s**2}
        for i, m in enumerate(methods)
        for s in range(seeds)
        for p in (0.3, 0.5, 0.8)
    )


def curve_of(fig, method):
    marker = style_of(method).marker
    return next(line for line in fig.axes[0].lines if line.get_marker() == marker and len(line.get_xdata()) == 3)


def test_coloured_methods_have_their_colour_and_interval_and_the_others_are_grey():
    stored = rows()
    fig = plots.evidence(stored, coloured=["pfp"], caption="See.")
    pfp, other = curve_of(fig, "pfp"), curve_of(fig, "l1_norm")
    assert same_color(pfp.get_color(), style_of("pfp").colour)
    assert same_color(other.get_color(), NEUTRAL)
    assert np.allclose(pfp.get_xdata(), [0.301, 0.501, 0.801])
    assert np.allclose(pfp.get_ydata(), stored[stored["method"] == "pfp"].groupby("asked")["accuracy"].mean())
    (band,) = fig.axes[0].collections
    edges = band.get_paths()[0].vertices
    interval = mean_interval(stored[(stored["method"] == "pfp") & (stored["asked"] == 0.8)]["accuracy"].to_numpy())
    at_the_end = edges[np.isclose(edges[:, 0], 0.801)][:, 1]
    assert np.isclose(at_the_end.min(), interval.low) and np.isclose(at_the_end.max(), interval.high)


def test_the_own_run_is_drawn_as_open_markers_at_its_means():
    mine = rows(methods=("pfp",), seeds=2, drop=30.0)
    fig = plots.evidence(rows(), mine[mine["asked"] == 0.5], coloured=["pfp"], caption="See.")
    (own,) = [line for line in fig.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert own.get_marker() == style_of("pfp").marker and own.get_linestyle() == "None"
    assert np.allclose(own.get_xydata(), [[0.5005, 75.5]])
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["your run"]


def test_every_method_is_named_once_beside_its_curve_and_names_keepapart():
    fig = plots.evidence(rows(drop=0.1), coloured=["pfp"], caption="See.")
    names = [text for text in fig.axes[0].texts if text.get_text() != "unpruned"]
    assert sorted(name.get_text() for name in names) == sorted(style_of(m).label for m in set(rows()["method"]))
    fig.canvas.draw()
    pixels = sorted(fig.axes[0].transData.transform((0, name.xyann[1]))[1] for name in names)
    assert min(upper - lower for lower, upper in pairwise(pixels)) >= 8.5 * fig.dpi / 72


@pytest.mark.parametrize("heights", [[0.0, 0.0, 0.0], [9.8, 9.9, 10.0], [1.0, 5.0, 5.05, 9.99]])
def test_heights_move_apart_and_stay_below_the_top(heights):
    moved = np.array(apart(heights, 0.5, 10.0))
    assert (np.diff(moved) >= 0.5 - 1e-9).all() and moved.max() <= 10.0
    assert apart([1.0, 3.0, 6.0], 0.5, 10.0) == [1.0, 3.0, 6.0]


def test_a_band_does_not_leave_what_an_accuracy_can_be():
    stored = rows(methods=("pfp",), drop=100.0).assign(accuracy=lambda r: r["accuracy"] + 25 * (r["seed"] - 1))
    assert plots.evidence(stored, coloured=["pfp"], caption="See.").axes[0].get_ylim() == (0, 101)


def test_an_unknown_method_in_colour_is_refused():
    with pytest.raises(BadInput, match="no row of 'snap'"):
        plots.evidence(rows(), coloured=["snap"], caption="See.")
    unknown = rows().assign(accuracy=lambda r: r["accuracy"].where(r["method"] != "pfp"))
    with pytest.raises(BadInput, match="no row of 'pfp' has 'sparsity' and 'accuracy'"):
        plots.evidence(unknown, coloured=["pfp"], caption="See.")


def test_without_an_own_row_no_own_run_is_in_the_legend():
    fig = plots.evidence(rows(), rows().assign(accuracy=float("nan")), coloured=["pfp"], caption="See.")
    assert fig.axes[0].get_legend() is None


def test_differences_lie_at_their_means_and_only_clear_ones_are_filled():
    found = {"l1_norm": {0.5: Interval(2.0, 1.0, 3.0, 5), 0.8: Interval(-1.0, -2.0, 0.5, 5)}}
    fig = plots.differences(found, ours="pfp", caption="See.")
    ahead, open_ = fig.axes[0].containers
    assert ahead.lines[0].get_xdata() == [2.0] and open_.lines[0].get_xdata() == [-1.0]
    assert ahead.lines[0].get_markerfacecolor() != "none" and open_.lines[0].get_markerfacecolor() == "none"
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["50 %", "80 %"]
    assert [text.get_text() for text in fig.axes[0].texts] == ["L1 filter norm"]
    single = plots.differences({"l1_norm": {0.5: found["l1_norm"][0.5]}}, ours="pfp", caption="See.")
    assert [t.get_text() for t in single.axes[0].get_yticklabels()] == ["L1 filter norm, 50 %"]
    assert "1 differences clearly ahead, 0 behind, 1 open" in fig.alt
    with pytest.raises(BadInput, match="no difference"):
        plots.differences({}, ours="pfp", caption="See.")


def test_comparisons_with_several_settings_stand_under_their_names_on_an_axis_that_holds_them():
    first = {0.5: Interval(1.0, -1.0, 3.0, 5), 0.9: Interval(40.0, 30.0, 50.0, 5)}
    found = {"zeros: SNIP": first, "filters: L1 norm": {0.9: Interval(-3.0, -4.0, -2.0, 5)}}
    fig = plots.differences(found, axis="mine minus yours", source="three seeds", caption="See.")
    (ax,) = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["50 %", "90 %", "90 %"]
    assert [t.get_text() for t in ax.texts] == list(found)
    assert ax.yaxis_inverted() and ax.get_xlabel() == "mine minus yours" and ax.get_xscale() == "symlog"
    heights = [*ax.get_yticks(), *(t.xy[1] for t in ax.texts)]
    assert heights[3] < heights[0] < heights[1] < heights[4] < heights[2]
    assert "three seeds" in [text.get_text() for text in fig.texts]
    assert "1 differences clearly ahead, 1 behind, 1 open" in fig.alt
    with pytest.raises(BadInput, match="ours=, a method, or axis="):
        plots.differences(found, caption="See.")


def test_differences_draw_what_gaps_found():
    found = {"l1_norm": gaps(rows(), "pfp", "l1_norm")}
    fig = plots.differences(found, ours="pfp", caption="See.")
    assert [c.lines[0].get_xdata()[0] for c in fig.axes[0].containers] == pytest.approx([3.0, 5.0, 8.0])


def test_a_caption_stands_in_a_figcaption_and_is_escaped():
    fig = plots.evidence(rows(), coloured=["pfp"], caption="See   <where>\n it ends.")
    page = plots.show(fig).to_html()
    assert "<figcaption>See &lt;where&gt; it ends.</figcaption></figure>" in page and len(fig.alt) < 200
    assert "<figcaption>A curve for each method" in plots.show(plots.accuracy_against_sparsity(rows())).to_html()
