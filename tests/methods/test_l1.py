"""L1, Lp and what holds for every penalty: its gradient, dead weights, layers that it needs, bad arguments."""

import copy

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
from pruning_core.methods.slimming import Slimming
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


ABSOLUTE = [L1(), L1(over="weights"), Slimming(), GateDecorators()]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("method", ABSOLUTE, ids=repr)
def test_what_is_pulled_in_place_is_the_gradient_of_autograd_bit_for_bit(method, masked):
    model = method.prepare(network(), torch.zeros(1, 1, 8, 8).double()).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[:2] = torch.tensor([0.0, -1e-8])[: parameter.numel()]  # at the kink, and at L1's own
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in model.named_parameters()}
    masks = Masks(drawn if masked else {})
    masks.apply_(model)
    model[0].weight.requires_grad_(False)
    x = torch.randn(3, 1, 8, 8, generator=generator)
    for _ in range(2):  # without gradients before, and on top of them
        model(x).logsumexp(1).sum().backward()
    twin = copy.deepcopy(model)
    for parameter, own in zip(model.parameters(), twin.parameters(), strict=True):
        own.grad = None if parameter.grad is None else parameter.grad.clone()
    model[8].bias.grad = twin[8].bias.grad = None
    (0.3 * method.penalty(model, masks)).backward()
    method.pull_(twin, masks, 0.3)
    moved = 0
    for (name, parameter), own in zip(model.named_parameters(), twin.parameters(), strict=True):
        if parameter.grad is None:
            assert own.grad is None, name
            continue
        assert torch.equal(parameter.grad, own.grad), name
        moved += torch.count_nonzero(own.grad).item()
    assert moved


def test_methods_that_are_absolute_say_so_and_all_others_have_nothing_to_pull():
    assert {name for name, method in pc.METHODS.items() if method.absolute} == {"l1", "slimming", "gates"}
    with pytest.raises(NotImplementedError):
        Lp().pull_(network(), Masks(), 1.0)


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
    for method, lacking in ((L1(), nn.ReLU()), (Slimming(), nn.ReLU()), (GateDecorators(), network())):
        with pytest.raises(Unprunable, match=r"no (parameter|ordinary batch norm|gates)"):
            method.pull_(lacking, Masks(), 1.0)


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
        (lambda: pc.Train(2, average=1.0), "average must lie in"),
        (lambda: pc.Train(2, average=0.9, keep="best_validation"), "not with both"),
        (lambda: pc.Train(2, penalty=(("magnitude", 1.0),)).penalty[0][0].penalty(network(), Masks()), "no penalty"),
        (lambda: as_method("hoyer"), "unknown method"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(PruningError, match=words) as caught:
        make()
    assert isinstance(caught.value, (BadInput, PruningError))
