"""Elasticities of weights and channels: derivatives by gates, and relative changes of the loss."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.masks.groups import Group, Member
from pruning_core.masks.sites import find_sites
from pruning_core.methods.shared.elasticities import (
    channel_elasticities,
    gate_elasticities,
    loss_gradients,
    producing_parameters,
    weight_elasticities,
)
from tests.masks.test_groups import NETWORKS, made
from tests.methods.gradient_networks import conv, residual


class Gate(nn.Module):
    """A layer whose outputs are multiplied by a vector of ones, in front of whatever follows."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.c = nn.Parameter(torch.ones(len(layer.weight), dtype=torch.float64))

    def forward(self, x):
        y = self.layer(x)
        return y * self.c.view(1, -1, *[1] * (y.dim() - 2))


def mean_loss(model, batches, loss=F.cross_entropy):
    return torch.stack([loss(model.eval()(x), y) for x, y in batches]).mean()


def test_a_channels_elasticity_is_the_derivative_by_a_gate_behind_its_layer(batches):
    model = conv()
    groups = find_sites(model, channels=True, example_input=batches[0][0][:1]).groups
    gradients, loss = loss_gradients(model, producing_parameters(groups.values()), batches, F.cross_entropy)
    ours = channel_elasticities(model, gradients, loss, groups)
    for name in groups:
        twin = copy.deepcopy(model)
        gate = Gate(twin.get_submodule(name))
        twin[int(name)] = gate
        value = mean_loss(twin, batches)
        (derivative,) = torch.autograd.grad(value, gate.c)
        torch.testing.assert_close(ours[name], (derivative / value).abs().detach(), rtol=1e-10, atol=1e-14)
        assert abs(float(value.detach()) - loss) < 1e-12


def test_members_of_a_residual_sum_share_one_gate(batches):
    """Three layers write into the last stage; one gate on all of them must give the same derivative."""
    model = residual()
    groups = {
        name: g
        for name, g in find_sites(model, channels=True, example_input=batches[0][0][:1]).groups.items()
        if len({m.layer for m in g.produces if not m.is_buffer}) > 1
    }
    if not groups:
        pytest.fail("this network was chosen because layers share channels in it")
    gradients, loss = loss_gradients(model, producing_parameters(groups.values()), batches, F.cross_entropy)
    for name, group in groups.items():
        layers = {m.layer for m in group.produces if not m.is_buffer}
        twin = copy.deepcopy(model)
        shared = nn.Parameter(torch.ones(group.size, dtype=torch.float64))
        for layer in layers:
            gate = Gate(twin.get_submodule(layer))
            gate.c = shared
            parent, _, child = layer.rpartition(".")
            setattr(twin.get_submodule(parent), child, gate)
        value = mean_loss(twin, batches)
        (derivative,) = torch.autograd.grad(value, shared)
        ours = channel_elasticities(model, gradients, loss, {name: group})[name]
        torch.testing.assert_close(ours, (derivative / value).abs().detach(), rtol=1e-9, atol=1e-13)


class Twice(nn.Module):
    """A layer that is called two times, and one that is never called: its weights are used all the same."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.uncalled, self.last = (
            nn.Linear(n, m) for n, m in [(8, 6), (6, 6), (6, 6), (6, 4)]
        )

    def forward(self, x):
        x = torch.tanh(self.again(torch.tanh(self.again(torch.tanh(self.first(x))))))
        return self.last(torch.tanh(F.linear(x, self.uncalled.weight, self.uncalled.bias)))


@pytest.mark.parametrize("how", ["sum", "mean", "max", "first"])
@pytest.mark.parametrize("kind", [*NETWORKS, "residual", "twice"])
def test_gates_that_hooks_put_behind_layers_say_the_same(kind, how):
    shape = {"residual": (1, 8, 8), "twice": (8,)}.get(kind, (2, 8, 8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = residual().eval() if kind == "residual" else Twice().double() if kind == "twice" else made(kind)
        inputs = [torch.randn(6, *shape).double() for _ in range(3)]
        given = [(x, model(x.flip(0)).argmax(1)) for x in inputs]
    if kind == "twice":  # a search follows calls only
        groups = {n: group(n, 6) for n in ("first", "again", "uncalled")}
    else:
        groups = find_sites(model, channels=True, example_input=inputs[0][:1]).groups
    gradients, loss = loss_gradients(model, producing_parameters(groups.values()), given, F.cross_entropy, 2)
    expected = channel_elasticities(model, gradients, loss, groups, how)
    found = gate_elasticities(model, groups, given, F.cross_entropy, 2, how)
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        torch.testing.assert_close(found[name], scores, rtol=1e-9, atol=1e-13)
    assert not any(module._forward_hooks for module in model.modules())


def group(layer: str, size: int) -> Group:
    """The channels that one linear layer makes."""
    every = torch.arange(size)
    return Group(layer, size, (Member(f"{layer}.weight", 0, every, every), Member(f"{layer}.bias", 0, every, every)))


def test_a_weights_elasticity_is_the_relative_change_of_the_loss(batches):
    """By central differences: (L(w (1 + h)) - L(w (1 - h))) / (2 h L)."""
    model = conv()
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    gradients, loss = loss_gradients(model, names, batches, F.cross_entropy)
    ours = weight_elasticities(model, gradients, loss)
    h = 1e-5
    for name, place in ((names[0], 7), (names[1], 100), (names[-1], 33)):
        weight = model.get_parameter(name)
        start = weight.detach().clone()
        values = []
        for factor in (1 + h, 1 - h):
            with torch.no_grad():
                weight.copy_(start).view(-1)[place] *= factor
                values.append(float(mean_loss(model, batches)))
                weight.copy_(start)
        change = abs(values[0] - values[1]) / (2 * h * abs(loss + 1e-8))
        assert math.isclose(float(ours[name].view(-1)[place]), change, rel_tol=1e-5, abs_tol=1e-10)
