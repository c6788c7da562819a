"""L1, Lp and what holds for every penalty: its gradient, dead weights, layers that it needs, bad arguments."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, PruningError, Unprunable
from pruning_core.experiments import recipes
from pruning_core.masks.masks import Masks
from pruning_core.methods.base import as_method
from pruning_core.methods.efficient_convnets import EfficientConvNets
from pruning_core.methods.gates import GateDecorators
from pruning_core.methods.hoyer import GroupHoyerSquare, HoyerSquare
from pruning_core.methods.l0 import L0
from pruning_core.methods.l1 import L1, Lp
from tests.methods.penalised_networks import network

PENALTIES = [HoyerSquare(), GroupHoyerSquare(), L1(), L1(over="weights"), Lp(), Lp(p=0.5, over="weights")]


@pytest.mark.parametrize("method", PENALTIES, ids=repr)
def test_gradients_are_those_of_finite_differences(method):
    model = network()
    method.penalty(model, Masks()).backward()
    for name, place in (("0.weight", 5), ("8.weight", 77)):
        weight = model.get_parameter(name)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight.view(-1)[place] += step
                values.append(method.penalty(model, Masks()).item())
                weight.view(-1)[place] -= step
        assert weight.grad.view(-1)[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("method", PENALTIES, ids=repr)
def test_dead_weights_contribute_nothing(method):
    model = network()
    masks = pc.prune(model, "magnitude", 0.6).masks
    masks.apply_(model)
    method.penalty(model, masks).backward()
    for name, mask in masks.items():
        gradient = model.get_parameter(name).grad
        assert torch.isfinite(gradient).all()
        assert torch.count_nonzero(gradient[~mask]) == 0
    small = nn.Linear(4, 1, bias=False).double()
    dead = Masks({"weight": torch.tensor([[True, True, False, False]])})
    with torch.no_grad():
        small.weight.copy_(torch.tensor([[1.0, 2, 0, 0]]))
    alone = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        alone.weight.copy_(torch.tensor([[1.0, 2]]))
    assert method.penalty(small, dead).item() == pytest.approx(method.penalty(alone, Masks()).item(), rel=1e-6)


def test_methods_without_their_layers_say_so():
    with pytest.raises(Unprunable, match="no gates"):
        GateDecorators().penalty(network(), Masks())
    with pytest.raises(Unprunable, match="no gate of their own"):
        pc.prune(network(), L0(), 0.5, example_input=torch.zeros(1, 1, 8, 8).double())
    with pytest.raises(Unprunable, match="no weight matrix"):
        HoyerSquare().penalty(nn.BatchNorm1d(3), Masks())
    for method in (L1(over="weights"), Lp(over="weights")):
        with pytest.raises(Unprunable, match="no weight matrix"):
            method.penalty(nn.BatchNorm1d(3), Masks())
    with pytest.raises(Unprunable, match="no parameter"):
        L1().penalty(nn.ReLU(), Masks())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L1(over="some"), "part of the parameters"),
        (lambda: Lp(p=0), "p must be above 0"),
        (lambda: GroupHoyerSquare(combine="x"), "combination"),
        (lambda: EfficientConvNets(combine="x"), "combination"),
        (lambda: GateDecorators(combine="x"), "combination"),
        (lambda: L0(open_probability=1.0), r"open_probability must lie in \(0, 1\)"),
        (lambda: L0(weight_decay=-1.0), "weight_decay must be finite and at least 0"),
        (lambda: recipes.tick_tock(0.5, 1, 1, ticks=0), "ticks must be at least 1"),
        (lambda: recipes.tick_tock(0.5, 1, 1, ticks=-1), "ticks must be at least 1"),
        (lambda: pc.Train(2, only="norms"), "part to train"),
        (lambda: pc.Train(2, average=1.0), "moving average"),
        (lambda: pc.Train(2, average=0.9, keep="best_validation"), "not with both"),
        (lambda: pc.Train(2, penalty=(("magnitude", 1.0),)).penalty[0][0].penalty(network(), Masks()), "no penalty"),
        (lambda: as_method("hoyer"), "unknown method"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(PruningError, match=words) as caught:
        make()
    assert isinstance(caught.value, (BadInput, PruningError))
