"""Efficient ConvNets, one after the other and greedily."""

import torch
from torch import nn

import pruning_core as pc
from pruning_core.methods.efficient_convnets import EfficientConvNets


def test_greedy_gives_no_credit_for_inputs_that_are_cut():
    model = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0, 5], [1, 1]]))  # the second unit goes
        model[2].weight.copy_(
            torch.tensor([[1.0, 9], [2, 1]])
        )  # by all inputs the first stays, without the second input the other
    example = torch.zeros(1, 2)
    for greedy, kept in ((False, 0), (True, 1)):
        masks = pc.prune(model, EfficientConvNets(greedy=greedy), 0.5, across="layer", example_input=example).masks
        assert masks["2.weight"].any(1).nonzero().flatten().tolist() == [kept]
