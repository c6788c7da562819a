"""Figures of predicted limits: what they draw and say, and the rows that they refuse."""

import dataclasses

import pandas as pd
import pytest
import torch
from torch import nn

from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.prediction import predict
from pruning_core.papers.how_sparse.prunability import predict_limit
from pruning_core.plots.how_sparse_geometry import crossing_slider
from pruning_core.plots.how_sparse_limits import fixed_point_and_loss
from pruning_core.plots.style import alt_text

ABOUT = pd.DataFrame([{"profile": "smoke", "seed": 0}])


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).eval()
    batches = [(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(3)]
    return predict_limit(model, batches, points=5, progress=False)


def test_the_limits_are_drawn_in_both_panels(found):
    fig = fixed_point_and_loss(found, ABOUT, title="Own")
    for ax in fig.axes[:2]:
        assert any(list(line.get_xdata()) == [found.removed] * 2 for line in ax.get_lines())
    assert f"cross at {found.removed:.2f}" in alt_text(fig) and alt_text(fig).startswith("Own: ")


def test_a_network_that_was_pruned_before_is_refused(found):
    with pytest.raises(BadInput, match="pruned before"):
        fixed_point_and_loss(dataclasses.replace(found, removed_before=0.5), ABOUT)


def test_without_accuracies_the_loss_stands_alone(found):
    bare = dataclasses.replace(found, measured=found.measured.assign(accuracy=float("nan")))
    assert len(fixed_point_and_loss(bare, ABOUT).axes) == 2


def test_the_slider_says_what_it_moves():
    weights = torch.linspace(-1, 1, 20)
    limits = {c: predict(torch.ones(20), None, 0.1, c * weights) for c in (1, 2)}
    drawn = crossing_slider(limits, control="factor on R =", title="Farther")
    assert drawn.control == "factor on R =" and "by factor on R, at 1:" in drawn.alt
    assert "by epsilon, at" in crossing_slider(limits).alt
