"""Inputs of layers: what is read, in which order, and that nothing stays behind."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, Unprunable
from pruning_core.models.activations import layer_inputs, places
from tests.methods.hidden_by_hand import DOUBLE, alive_channels, network, plain, randomised, seeded

# --- memory


def test_layers_behind_the_last_wanted_one_are_not_run():
    model, x, _ = network("conv norm pool conv")
    ran: list[str] = []
    for name, module in model.named_children():
        module.register_forward_pre_hook(lambda m, inputs, name=name: ran.append(name))
    model.train()
    dense = model[3](F.relu(copy.deepcopy(model).eval()[1](model[0](x))))
    ran.clear()
    before = copy.deepcopy(model.state_dict())
    found = list(layer_inputs(model, ["4"], [(x[:5],), (x[5:],)]))
    assert ran == ["0", "1", "2", "3", "4"] * 2
    np.testing.assert_allclose(torch.cat([seen["4"] for seen in found]), dense.detach(), rtol=1e-12)
    assert not any(seen["4"].requires_grad for seen in found)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(len(module._forward_pre_hooks) == 1 for module in model.children())


class ChangedLater(nn.Module):
    """Its hidden map is changed in place after the first of two layers has read it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.a(x)
        first = self.b(hidden)
        return first + self.c(hidden.relu_())


def test_inputs_do_not_depend_on_which_other_layers_are_asked_for():
    model, x = randomised(ChangedLater()), torch.randn(5, 3, generator=seeded(0), dtype=DOUBLE)
    (alone,) = layer_inputs(model, ["b"], [(x,)])
    (both,) = layer_inputs(model, ["b", "c"], [(x,)])
    assert (alone["b"] < 0).any()
    assert torch.equal(alone["b"], both["b"])


def test_an_error_in_the_network_leaves_no_hook():
    model, x, _ = network("conv norm pool conv")
    with pytest.raises(BadInput, match="cannot take inputs"):
        list(layer_inputs(model, ["4"], [(x,), (x[:, :, :1, :1].expand(-1, 2, -1, -1),)]))
    assert not model[4]._forward_pre_hooks


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.idle = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(self.a(x))


def test_layers_that_are_not_reached_or_reached_twice():
    model, x = Unused(), torch.randn(2, 4)
    for call in (lambda: places(model, ["idle"], x), lambda: list(layer_inputs(model, ["idle"], [(x,)]))):
        with pytest.raises(Unprunable, match=r"'idle' takes no part in the forward pass"):
            call()
    layer = nn.Linear(4, 4)
    with pytest.raises(Unprunable, match=r"'0' is used more than once"):
        places(nn.Sequential(layer, nn.ReLU(), layer), ["0"], x)


# --- what cannot be worked with


class ByKeyword(nn.Module):
    """Gives layers their inputs by name, as torch allows."""

    def __init__(self):
        super().__init__()
        self.a, self.read, self.norm, self.head = nn.Linear(4, 8), nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.norm(input=self.read(input=torch.relu(self.a(x)))))


def test_layers_that_are_called_by_keyword():
    model = randomised(ByKeyword(), 0)
    x = torch.randn(12, 4, generator=seeded(0), dtype=DOUBLE)
    found = pc.prune(model, "ispasp", None, across={"a": 0.75}, batches=[(x, None)])
    maps = torch.relu(model.a(x)).detach()
    steps = plain(maps, nn.Sequential(model.read, model.norm), 2)
    assert alive_channels(found)["a"] == steps[-1][2]


def test_nothing_stays_in_force_between_two_batches():
    """A generator that is not read to its end must not leave hooks, modes or switched-off gradients behind."""
    model, x, _ = network("conv norm pool conv")
    model.train()
    reading = layer_inputs(model, ["4"], [(x,), (x,)])
    next(reading)
    assert torch.is_grad_enabled()
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model(x).requires_grad
