"""Figures of a Hessian's spectrum: what is drawn equals the rows, and bad tables are refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pruning_core.book.exercises import EXERCISES, check
from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos
from pruning_core.papers.how_sparse.curvature.measures import Spectrum
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.plots import how_sparse_curvature as figures
from pruning_core.plots.style import alt_text, show


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def points(values, weights=None, **about):
    weights = [1 / len(values)] * len(values) if weights is None else weights
    return pd.DataFrame({"eigenvalue": values, "weight": weights}).assign(seed=0, profile="smoke", **about)


def test_spectra_become_rows():
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=torch.float64)
    spectrum = Spectrum(torch.tensor([[3.0, -1.0], [2.0, 0.0]], dtype=torch.float64), weights, 7)
    rows = figures.spectrum_rows(spectrum, spectrum="two probes", seed=4)
    assert rows["eigenvalue"].tolist() == [-1, 2, 3]
    assert rows["weight"].tolist() == [0.375, 0.5, 0.125]
    assert set(rows["spectrum"]) == {"two probes"}
    assert set(rows["seed"]) == {4}


# --- densities


def test_areas_on_the_drawn_axis_are_shares():
    rows = points([-1.0, 1e-9, 10.0], [0.2, 0.5, 0.3], spectrum="exact")
    fig = figures.spectral_density(rows, threshold=0.01, blur=0.1, title="t")
    ax = fig.axes[0]
    x, y = lines(ax)["exact"].T
    # The axis's own transformation, in decades: from 0 to the threshold is one of them.
    place = ax.xaxis.get_transform().transform(x) / 0.01
    assert np.trapezoid(y, place) == pytest.approx(1, abs=1e-3)
    for centre, share in ((-3, 0.2), (0, 0.5), (4, 0.3)):
        near = np.abs(place - centre) < 0.9
        assert np.trapezoid(y[near], place[near]) == pytest.approx(share, abs=1e-3)
        assert place[near][y[near].argmax()] == pytest.approx(centre, abs=0.01)
        # A Gaussian of standard deviation 0.1 has this height.
        assert y[near].max() == pytest.approx(share / (0.1 * math.sqrt(2 * math.pi)), rel=1e-2)
    assert "exact: 50% within ±0.01, largest 10" in alt_text(fig)
    assert "profile smoke" in fig.get_supxlabel()
    assert show(fig).to_html().startswith("<style>")


def test_spectra_are_drawn_one_by_one_and_all_of_each_is_seen():
    rows = pd.concat([points([0.0, 1.0, 2.0], spectrum="exact"), points([1.5], spectrum="Lanczos")])
    fig = figures.spectral_density(rows, threshold=0.1)
    ax = fig.axes[0]
    drawn = lines(ax)
    assert set(drawn) == {"exact", "Lanczos"}
    bottom, top = ax.get_ylim()
    highest = max(y.max() for y in (drawn["exact"][:, 1], drawn["Lanczos"][:, 1]))
    assert highest < top < 10 * highest
    one_eigenvalue = (1 / 3) / (0.06 * math.sqrt(2 * math.pi))
    assert bottom == pytest.approx(one_eigenvalue / 2)
    assert len(ax.collections) == 1  # only the first is filled
    assert drawn["Lanczos"][drawn["Lanczos"][:, 1].argmax(), 0] == pytest.approx(1.5, rel=0.02)


def test_ticks_name_the_same_powers_on_both_sides():
    ax = figures.spectral_density(points([-0.5, 0.0, 20.0], spectrum="s"), threshold=0.01).axes[0]
    assert ax.get_xticks() == pytest.approx([-0.1, -0.01, 0, 0.01, 0.1, 1, 10])
    ax = figures.spectral_density(points([-2e-9, 0.0, 20.0], spectrum="s"), threshold=1e-8).axes[0]
    assert ax.get_xticks() == pytest.approx([0, 1e-7, 1e-5, 1e-3, 1e-1, 1e1])


# --- what Lanczos sees


def test_the_slider_holds_stairs_of_shares():
    exact = points([-3.0, 0.0, 1.0, 4.0])
    rows = pd.concat([points([2.0], [1.0], steps=1), points([0.5, 3.0], [0.6, 0.4], steps=2)])
    drawn = figures.tail_slider(exact, rows, least=0.01, title="t")
    assert drawn.names == ["1", "2"]
    assert drawn.per_position == 2
    stairs = {(i, t["name"]): (t["x"], t["y"]) for i, t in ((j // 2, t) for j, t in enumerate(drawn.data))}
    floor = 0.125  # half of one eigenvalue
    assert stairs[0, "exact"] == ([4, 4, 1, 1, 0.01], [floor, 0.25, 0.25, 0.5, 0.5])
    assert stairs[1, "exact"] == stairs[0, "exact"]
    assert stairs[0, "Lanczos"] == ([2, 2, 0.01], [floor, 1, 1])
    assert stairs[1, "Lanczos"] == ([3, 3, 0.5, 0.5, 0.01], [floor, 0.4, 0.4, 1, 1])
    assert "Exact: largest 4, 50% above 0.01. By steps, 1: largest 2, 100% above; 2: largest 3" in drawn.alt
    assert len({t["line"]["color"] for t in drawn.data}) == 2
    assert drawn.layout["yaxis"]["type"] == "log"
    json.dumps(drawn.to_plotly(), allow_nan=False)


def test_points_of_too_little_weight_are_not_drawn():
    drawn = figures.tail_slider(points([1.0, 2.0]), points([5.0, 1.0], [0.1, 0.9], steps=3), least=0.1)
    assert drawn.data[1]["x"] == [1, 1, 0.1]  # a tenth of the weight at 5 is below half of one eigenvalue
    assert drawn.data[1]["y"] == [0.25, 1, 1]
    drawn = figures.tail_slider(points([1.0, 2.0]), points([-1.0], [1.0], steps=3), least=0.1)
    assert (drawn.data[1]["x"], drawn.data[1]["y"]) == ([0.1], [0.25])


def test_a_long_curve_keeps_its_ends_and_its_shape():
    values = np.linspace(1, 2, 5000)
    drawn = figures.tail_slider(points(values), points([1.5], [1.0], steps=1), least=0.5)
    x, y = np.array(drawn.data[0]["x"]), np.array(drawn.data[0]["y"])
    assert len(x) <= 2 * figures.MOST_POINTS + 3
    assert (x[0], x[-1], y[-1]) == pytest.approx((2, 0.5, 1))
    corners = slice(1, -1, 2)
    assert y[corners] == pytest.approx(2 - x[corners], abs=2 / 5000)


def test_ritz_values_stand_over_their_steps():
    diagonal = torch.tensor([0.0, 0.01, 1.0, 5.0], dtype=torch.float64)
    run = lanczos(lambda v: diagonal * v, torch.ones(4, dtype=torch.float64), 4)
    rows = pd.concat(
        pd.DataFrame({"steps": m, "eigenvalue": np.linalg.eigvalsh(_matrix(run, m))}) for m in range(1, 5)
    ).assign(seed=0)
    fig = figures.ritz_values(points(diagonal.tolist()), rows, threshold=0.001, title="t")
    ax = fig.axes[0]
    drawn, exact = ax.collections[0].get_offsets(), ax.collections[1].get_segments()
    assert np.asarray(drawn) == pytest.approx(rows[["steps", "eigenvalue"]].to_numpy())
    assert [segment[0, 1] for segment in exact] == pytest.approx([0, 0.01, 1, 5])
    assert ax.get_yscale() == "symlog"
    assert "within a percent from step 3 on" in alt_text(fig)
    fig = figures.ritz_values(points([9.0]), rows, threshold=0.001)
    assert "The largest is not met" in alt_text(fig)


def _matrix(run, m):
    return np.diag(run.alpha[:m]) + np.diag(run.beta[: m - 1], 1) + np.diag(run.beta[: m - 1], -1)


# --- bad input and exercises


@pytest.mark.parametrize(
    ("draw", "column"),
    [
        (lambda rows: figures.spectral_density(rows, threshold=1), "spectrum"),
        (lambda rows: figures.tail_slider(rows, rows, least=1), "eigenvalue"),
        (lambda rows: figures.tail_slider(points([1.0]), points([1.0]), least=1), "steps"),
        (lambda rows: figures.ritz_values(rows, rows, threshold=1), "eigenvalue"),
        (lambda rows: figures.ritz_values(points([1.0]), points([1.0]), threshold=1), "steps"),
    ],
)
def test_tables_without_their_columns_are_refused(draw, column):
    with pytest.raises(BadInput, match=f"lack the column '{column}'"):
        draw(pd.DataFrame([{"x": 1}]))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_are_not_positive_are_refused(bad):
    rows = points([1.0], spectrum="s", steps=1)
    for draw in (
        lambda: figures.spectral_density(rows, threshold=bad),
        lambda: figures.spectral_density(rows, threshold=1.0, blur=bad),
        lambda: figures.tail_slider(rows, rows, least=bad),
        lambda: figures.ritz_values(rows, rows, threshold=bad),
    ):
        with pytest.raises(BadInput, match="must be finite and above 0"):
            draw()


def test_empty_tables_are_refused():
    with pytest.raises(BadInput, match="no row to draw"):
        figures.spectral_density(points([1.0], spectrum="s")[:0], threshold=1.0)


def test_the_exercises_of_the_page_have_the_answers_of_the_package(capsys):
    values = torch.tensor([0.0, 1.0, 10.0], dtype=torch.float64).repeat(20)
    start = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = len(lanczos(lambda v: values * v, start, 10).alpha)
    # 2 epsilon = R^2 lambda for the small batches
    widths = normalised_width(1.0, [2.0], 0.5)
    answers = {"steps": steps, "tolerance": [0.5, widths]}
    assert normalised_width(1.0, [2.0], 1.0) == 0.5
    for name, answer in answers.items():
        check(f"how_sparse/spectrum-{name}", answer)
        assert capsys.readouterr().out == "Right.\n"
        check(f"how_sparse/spectrum-{name}", 0.123)
        assert EXERCISES[f"how_sparse/spectrum-{name}"].hint in " ".join(capsys.readouterr().out.split())
