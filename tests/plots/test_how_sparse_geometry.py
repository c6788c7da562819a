"""Figures of high-dimensional geometry: what is drawn equals closed forms and rows, and bad tables are refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi

from pruning_core.book.exercises import EXERCISES, check
from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.geometry.cones import CircularCone
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.papers.how_sparse.geometry.widths import Ellipsoid
from pruning_core.papers.how_sparse.prediction import predict
from pruning_core.papers.how_sparse.transitions import circular_cone, ellipsoid, l1_recovery, log_uniform, transitions
from pruning_core.plots import how_sparse_geometry as figures
from pruning_core.plots.style import alt_text, show


@pytest.fixture(scope="module")
def cones():
    angles = [math.radians(a) for a in (20, 50, 80)]
    rows = circular_cone(12, angles, trials=30, progress=False)
    return rows.assign(degrees=rows["angle"].map(math.degrees).round(6), profile="smoke", device="a CPU", seconds=1.0)


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def traces(drawn, position):
    """Curves of one position of a slider: name -> (x, y)."""
    per = drawn.per_position
    return {t["name"]: (np.array(t["x"]), np.array(t["y"])) for t in drawn.data[position * per : (position + 1) * per]}


# --- cones


def test_the_meeting_slider_holds_exact_probabilities():
    drawn = figures.meeting_slider([2, 300], [30, 60], title="t")
    assert drawn.names == ["2", "300"]
    x, y = traces(drawn, 0)["cone of 30°"]
    assert x.tolist() == [0, 0.5, 1]
    assert y == pytest.approx([0, 2 * 30 / 180, 1])  # a line in the plane: within 30 degrees of the axis on both sides
    x, y = traces(drawn, 1)["cone of 60°"]
    assert len(x) == 201
    assert y[x < 0.15].max() < 0.02
    assert y[x > 0.35].min() > 0.98  # the jump is at 1 - sin^2 = 1/4


def test_sliders_are_valid_and_their_curves_have_different_colours():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(30, generator=g)
    for drawn in (
        figures.meeting_slider([3, 9], [10, 25, 45, 65], title="t"),
        figures.crossing_slider({e: predict(log_uniform(30), None, e, w) for e in (0.1, 1.0)}, title="t"),
        figures.trace_slider({"flat": torch.ones(4), "not": log_uniform(4)}, 0.5, title="t"),
    ):
        colours = [t["line"]["color"] for t in drawn.data]
        assert len(set(colours)) == drawn.per_position
        assert colours[: drawn.per_position] == colours[drawn.per_position :]
        assert drawn.alt.startswith("t: ")
        assert 'class="pruning-slider"' in drawn.to_html()
        json.dumps(drawn.to_plotly(), allow_nan=False)


def test_norm_densities_are_densities_of_the_scaled_norm():
    fig = figures.norm_densities([12, 50], title="t")
    left, right = fig.axes
    for d in (12, 50):
        x, y = lines(left)[f"D = {d}"].T
        assert np.trapezoid(y, x) == pytest.approx(1, abs=2e-3)
        assert np.trapezoid(x**2 * y, x) == pytest.approx(1, abs=1e-2)  # E |g|^2 = D
        x, y = lines(right)[f"D = {d}"].T
        mean = np.trapezoid(x * y, x)
        assert mean == pytest.approx(chi.mean(d) - math.sqrt(d), abs=1e-3)
        assert np.trapezoid((x - mean) ** 2 * y, x) == pytest.approx(chi.var(d), abs=1e-3)
    assert f"D = 50: {chi.std(50) / math.sqrt(50):.2g} and {chi.std(50):.2g}" in alt_text(fig)
    assert "closed form" in fig.get_supxlabel()


def test_cone_sizes_show_points_beside_the_exact_curve():
    exact = CircularCone(9, math.radians(40)).statistical_dimension()
    rows = pd.DataFrame([{"ambient": 9, "degrees": 40, "mean": exact + 0.3, "standard_error": 0.1, "seed": 0}])
    fig = figures.cone_sizes(rows, title="t")
    ax = fig.axes[0]
    x, y = lines(ax)["D = 9"].T
    assert np.interp(40, x, y) * 9 == pytest.approx(exact)
    points = ax.containers[0].lines[0].get_xydata()
    assert points == pytest.approx(np.array([[40, (exact + 0.3) / 9]]))
    low, high = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 9)
    assert "at most 3.0 standard errors" in alt_text(fig)


# --- transitions


def test_the_map_shows_shares_and_the_predicted_curve(cones):
    fig = figures.transition_map(cones, "degrees", name="angle", eta=0.1, title="t")
    ax = fig.axes[0]
    shares = np.asarray(ax.collections[0].get_array()).reshape(13, 3)
    for column, degrees in enumerate((20, 50, 80)):
        part = cones[cones["degrees"] == degrees].sort_values("k")
        assert shares[:, column].tolist() == (part["successes"] / 30).tolist()
    drawn = lines(ax)
    predicted = [12 - CircularCone(12, math.radians(a)).statistical_dimension() for a in (20, 50, 80)]
    assert drawn["predicted"][:, 1] == pytest.approx(predicted)
    below = drawn["window, η = 0.1"][:, 1]
    assert below == pytest.approx(np.array(predicted) - math.sqrt(8 * math.log(40) * 12))
    assert "Dashed" in alt_text(fig)
    assert show(fig).to_html().startswith("<style>")


def test_the_map_marks_where_the_exact_probability_is_a_tenth(cones):
    drawn = lines(figures.transition_map(cones, "degrees", name="angle").axes[0])
    part = cones[cones["degrees"] == 50].sort_values("k")
    at = drawn["exact 10 and 90 %"][1, 1]
    assert np.interp(at, part["k"], part["probability"]) == pytest.approx(0.1)


def test_the_map_takes_ellipsoids_with_a_corrected_curve_and_measurements():
    rows = ellipsoid(log_uniform(8), [0.1, 1.0, 10.0], trials=4, progress=False)
    fig = figures.transition_map(rows, "epsilon", name="ε", corrected=lambda e: 4 - e / 10, logarithmic=True, title="t")
    ax = fig.axes[0]
    assert ax.get_xscale() == "log"
    assert lines(ax)["distance corrected"][:, 1].tolist() == [3.99, 3.9, 3.0]
    assert "from 3.99 to 3" in alt_text(fig)
    assert "exact 10 and 90 %" not in lines(ax)
    recovered = l1_recovery(8, [1, 3], trials=2, progress=False)
    fig = figures.transition_map(recovered, "nonzero", name="non-zero")
    assert fig.axes[0].get_ylabel() == "random measurements"


def test_sharpening_draws_shares_and_relative_widths():
    settings = {"trials": 200, "progress": False}
    rows = pd.concat([circular_cone(d, [math.pi / 4], **settings) for d in (10, 90)])
    rows = rows.assign(seconds=1.0, revision=None)  # columns of a record, which say nothing of the setting
    fig = figures.sharpening(rows, title="t")
    left, right = fig.axes
    part = rows[rows["ambient"] == 90]
    assert lines(left)["D = 90"] == pytest.approx(np.c_[part["k"] / 90, part["successes"] / 200])
    assert lines(left)["predicted"][0, 0] == pytest.approx(0.5)
    curve = right.get_lines()[0].get_xydata()
    moved = transitions(part.drop(columns=["seconds", "revision"])).iloc[0]
    assert curve[1] == pytest.approx([90, (moved["high"] - moved["low"]) / 90])
    slope = lines(right)["slope −1/2"]
    assert slope[1, 1] / slope[0, 1] == pytest.approx(1 / 3)
    assert f"D = 90: {curve[1, 1]:.3f}" in alt_text(fig)


def test_bias_is_drawn_by_epsilon():
    moved = pd.DataFrame(
        [
            {"ambient": d, "epsilon": e, "difference": -e / 10 - 1 / d if d < 100 else math.nan, "seed": 0}
            for d in (50, 20, 100)
            for e in (0.5, 2)
        ]
    )
    fig = figures.bias_against_dimension(moved, title="t")
    assert lines(fig.axes[0])["ε = 2"] == pytest.approx(np.array([[20, -0.25], [50, -0.22]]))
    assert "ε = 0.5 from -0.1 at 20 to -0.07 at 50" in alt_text(fig)


# --- limits


def test_the_curves_cross_at_the_limit():
    w = torch.randn(40, generator=torch.Generator().manual_seed(1))
    limits = {e: predict(log_uniform(40), None, e, w) for e in (0.05, 0.5, 5.0)}
    drawn = figures.crossing_slider(limits, title="t")
    assert drawn.names == ["0.05", "0.5", "5"]
    assert drawn.start == 1
    for i, limit in enumerate(limits.values()):
        found = traces(drawn, i)
        p, removed = found["removed fraction n / D"]
        room = found["room seen from there, G(R(n))"][1]
        assert removed.tolist() == p.tolist()
        assert p[removed <= room + 1e-9].max() == pytest.approx(limit.removed)
        x, y = found["limit"]
        assert x == pytest.approx(limit.removed)
        assert y == pytest.approx([0, limit.removed])


def test_limits_are_means_over_trials():
    rows = pd.DataFrame(
        [
            {"limit": kind, "epsilon": e, "removed": base + e / 10 + t / 50, "seed": t}
            for kind, base in (("predicted", 0.3), ("measured", 0.1))
            for e in (1, 2)
            for t in (0, 1)
        ]
    )
    fig = figures.limits_against_epsilon(rows, title="t")
    assert lines(fig.axes[0])["measured"] == pytest.approx(np.array([[1, 0.21], [2, 0.31]]))
    assert "predicted from 41 % at 1 to 51 % at 2" in alt_text(fig)
    assert fig.axes[0].collections[0].get_datalim(fig.axes[0].transData).y0 == pytest.approx(0.4)


def test_the_trace_bound_is_met_by_the_flat_spectrum_only():
    spread = log_uniform(50, 0.01, 1.0)
    drawn = figures.trace_slider({"flat": torch.full((50,), 2.0), "spread": spread}, 0.5, reach=4.0, title="t")
    kept, bound = (y for _, y in traces(drawn, 0).values())
    assert kept == pytest.approx(bound, abs=1e-5)  # traces hold six digits
    (x, kept), (_, bound) = traces(drawn, 1).values()
    assert x[-1] == 4
    assert kept[-1] == pytest.approx(1 - normalised_width(4.0, spread, 0.5), abs=1e-5)
    assert (bound[1:] > kept[1:]).all()


# --- bad input and exercises


@pytest.mark.parametrize(
    ("draw", "column"),
    [
        (lambda rows: figures.cone_sizes(rows), "ambient"),
        (lambda rows: figures.transition_map(rows, "degrees", name="x"), "k"),
        (lambda rows: figures.sharpening(rows), "k"),
        (lambda rows: figures.bias_against_dimension(rows), "ambient"),
        (lambda rows: figures.limits_against_epsilon(rows), "epsilon"),
    ],
)
def test_tables_without_their_columns_are_refused(draw, column):
    with pytest.raises(BadInput, match=f"lack the column '{column}'"):
        draw(pd.DataFrame([{"x": 1}]))


def test_other_bad_tables_are_refused(cones):
    with pytest.raises(BadInput, match="lack the column 'spread'"):
        figures.transition_map(cones, "spread", name="x")
    with pytest.raises(BadInput, match="no row to draw"):
        figures.transition_map(cones[:0], "degrees", name="x")
    with pytest.raises(BadInput, match="one dimension"):
        figures.transition_map(pd.concat([cones, cones.assign(ambient=13)]), "degrees", name="x")
    with pytest.raises(BadInput, match=r"D = 12 has 3\."):
        figures.sharpening(cones)
    with pytest.raises(BadInput, match="at least one position"):
        figures.crossing_slider({})


def test_the_exercises_of_the_page_have_the_answers_of_the_package(capsys):
    cone = 1000 - CircularCone(1000, math.pi / 6).statistical_dimension()
    kept = 1 - normalised_width(2.0, [4.0] * 5, 2.0)
    radius = float(Ellipsoid.of_sublevel([4.0], 2.0).radii)
    limit = predict([1.0] * 1000, None, 1.0, torch.full((1000,), 0.1, dtype=torch.float64)).removed
    for name, answer in {"cone": cone, "ball": [kept, 1 - (radius / 2) ** 2], "crossing": limit}.items():
        check(f"how_sparse/{name}", answer)
        assert capsys.readouterr().out == "Right.\n"
        check(f"how_sparse/{name}", 0.123)
        assert EXERCISES[f"how_sparse/{name}"].hint in " ".join(capsys.readouterr().out.split())
