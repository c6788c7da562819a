"""Hoyer-Square over weights and over groups."""

import copy

import pytest
import torch
from torch import nn

from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.hoyer import GroupHoyerSquare, HoyerSquare
from pruning_core.pruning import prune_step
from tests.methods.penalised_networks import network


@pytest.mark.parametrize(
    ("values", "expected"), [([5.0, 0, 0, 0], 1), ([1.0, -1, 1, -1], 4), ([2.0, 2, 0, 0], 2), ([0.0] * 4, 0)]
)
def test_hoyer_square_counts_equal_weights(values, expected):
    layer = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values).view(2, 2))
    assert HoyerSquare().penalty(layer, Masks()).item() == pytest.approx(expected)
    scaled = copy.deepcopy(layer)
    with torch.no_grad():
        scaled.weight.mul_(7)
    assert HoyerSquare().penalty(scaled, Masks()).item() == pytest.approx(expected)


def test_group_hoyer_counts_equal_rows_and_columns():
    layer = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1, 1], [1, 1, 1]]))
    # Three columns of norm sqrt(2), two rows of norm sqrt(3), squared norm 6.
    assert GroupHoyerSquare().penalty(layer, Masks()).item() == pytest.approx(
        (3 * 2**0.5) ** 2 / 6 + (2 * 3**0.5) ** 2 / 6
    )


def test_an_empty_layer_has_a_finite_penalty_and_gradient():
    layer = nn.Linear(3, 3, bias=False).double()
    nn.init.zeros_(layer.weight)
    for method in (HoyerSquare(), GroupHoyerSquare()):
        layer.zero_grad()
        method.penalty(layer, Masks()).backward()
        assert torch.isfinite(layer.weight.grad).all()


def test_below_cuts_what_became_small(batches):
    model = network()
    with torch.no_grad():
        model[0].weight[2] = 1e-4
        model[8].weight[:, :5] = -1e-4
    result = prune_step(model, HoyerSquare(), Budget(below=1e-3), find_sites(model, channels=False), Masks())
    assert (~result.masks["0.weight"][2]).all() and (~result.masks["8.weight"][:, :5]).all()
