"""The figures of the chapters' live panels: what they draw follows from what the package computes at the knob's place."""

import numpy as np
import pandas as pd
import pytest
import torch

from pruning_core.errors import BadInput
from pruning_core.methods import two_layer
from pruning_core.papers.how_sparse import log_uniform, predict
from pruning_core.papers.ispasp import compressible
from pruning_core.papers.rni import receding_threshold
from pruning_core.plots import how_sparse_limits, ispasp, rni, sipp_pfp
from pruning_core.plots.style import style_of


def recovery(s, **options):
    generator = torch.Generator().manual_seed(1)
    hidden = compressible(30, samples=20, p=0.7, generator=generator)
    weight = torch.randn(5, 30, generator=generator, dtype=torch.float64)
    return two_layer(hidden, weight, s=s, **options)


def test_the_kept_neurons_are_the_coloured_bars():
    found = recovery(4, residuals=True)
    left, right = ispasp.chosen(found).axes
    violet = list(left.containers[1])
    order = found.activation.argsort(descending=True).tolist()
    assert sorted(order[round(bar.get_x() + bar.get_width() / 2) - 1] for bar in violet) == found.support.tolist()
    assert len(left.containers[0]) == 26
    (line,) = right.lines
    assert line.get_ydata()[-1] == pytest.approx(float(found.residuals[-1] / found.residuals[0]))


def test_from_half_of_the_neurons_on_none_is_passed_over():
    assert "; 0 of the 15 most active ones are not among them" in ispasp.chosen(recovery(15, residuals=True)).alt
    with pytest.raises(BadInput, match="residuals=True"):
        ispasp.chosen(recovery(4))


def test_half_of_the_estimates_lie_left_of_where_a_curve_meets_the_dotted_line():
    errors = {"sipp_random": torch.linspace(0.01, 0.05, 401), "uniform": torch.linspace(0.1, 0.5, 401)}
    fig = sipp_pfp.error_spread(errors, 64)
    curves = {line.get_label(): line for line in fig.axes[0].lines}
    for rule, median in (("sipp_random", 3.0), ("uniform", 30.0)):
        x, y = curves[style_of(rule).label].get_data()
        assert np.interp(0.5, y, x) == pytest.approx(median, rel=0.02)
    assert "SiPPRand 3 %; uniform sampling 30 %" in fig.alt and "64 draws" in fig.alt


def test_importances_below_the_threshold_are_one_heap_under_rni_and_none_is_lost_under_l1():
    targets = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)
    fig = rni.settled_histograms(targets, 0.1)
    wanted, under_l1, under_rni = (np.array([bar.get_height() for bar in ax.patches]) for ax in fig.axes)
    receded = float((targets < receding_threshold(0.1)).double().mean())
    assert under_rni[0] == pytest.approx(receded)
    assert under_l1[-2:].sum() == 0 < under_rni[-2:].sum()
    for heights in (wanted, under_l1, under_rni):
        assert heights.sum() == pytest.approx(1)
    assert f"under RNI {receded:.0%} recede" in fig.alt


def test_the_two_sides_of_the_equation_cross_where_the_limit_is():
    weights = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    limits = [predict(log_uniform(200), None, epsilon, weights) for epsilon in (0.5, 5.0)]
    assert limits[0].removed < limits[1].removed
    for limit in limits:
        ax = how_sparse_limits.crossing(limit).axes[0]
        sides = [pd.Series(line.get_ydata(), line.get_xdata()) for line in ax.lines[:2]]
        apart = (sides[0] - sides[1]).abs()
        assert apart.idxmin() == pytest.approx(limit.removed, abs=0.006)
