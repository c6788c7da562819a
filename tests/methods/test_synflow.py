"""SynFlow: a conserved flow that never cuts the network in two."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.synflow import SynFlow
from tests.methods.gradient_networks import conv


def test_synflow_scores_are_conserved_from_layer_to_layer():
    """Without biases, the scores of each layer add up to the same flow (Tanaka et al. 2020, theorem 2)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Linear(5, 7, bias=False),
            nn.ReLU(),
            nn.Linear(7, 6, bias=False),
            nn.ReLU(),
            nn.Linear(6, 2, bias=False),
        ]
        model = nn.Sequential(*layers).double()
    from pruning_core.methods.base import View

    sites = find_sites(model, channels=False)
    twin = copy.deepcopy(model)
    view = View(twin, sites, Masks(), None, F.cross_entropy, torch.Generator(), torch.zeros(1, 5).double())
    sums = [float(score.sum()) for score in SynFlow().score(view).values()]
    assert max(sums) - min(sums) < 1e-9 * max(sums)
    product = torch.ones(5).double()
    for layer in (0, 2, 4):
        product = model[layer].weight.detach().abs() @ product
    assert math.isclose(sums[0], float(product.sum()), rel_tol=1e-12)


def test_synflow_never_cuts_the_network_in_two(batches):
    """At a sparsity where one-shot magnitude has no path left, SynFlow still has one from every... to some output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (a, b) in enumerate([(64, 40), (40, 40), (40, 40), (40, 10)]):
            layers += [nn.Linear(a, b, bias=False)] + ([nn.ReLU()] if i < 3 else [])
        model = nn.Sequential(*layers).double()
    sparsity = 1 - 30 / 6160

    def flow(result):
        x = torch.ones(64).double()
        for module in result.model:
            if isinstance(module, nn.Linear):
                x = module.weight.detach().abs() @ x
        return float(x.sum())

    example = batches[0][0][:1]
    assert flow(pc.prune(model, "synflow", sparsity, example_input=example)) > 0
    assert flow(pc.prune(model, "random", sparsity, example_input=example, seed=1)) == 0


def test_synflow_needs_no_data_but_a_shape(batches):
    with pytest.raises(BadInput, match="example_input"):
        pc.prune(conv(), "synflow", 0.5)
    a = pc.prune(conv(), "synflow", 0.5, example_input=batches[0][0][:1]).masks
    assert a == pc.prune(conv(), "synflow", 0.5, example_input=torch.zeros(2, 1, 8, 8).double()).masks


def test_synflow_goes_on_in_double_precision_where_the_flow_overflows():
    """Thirty layers whose weights add up to more than a float can hold."""
    layers: list[nn.Module] = []
    for _ in range(30):
        layers += [nn.Linear(20, 20, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(20, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    before = [p.detach().clone() for p in model.parameters()]
    example = torch.ones(1, 20)
    masks = pc.prune(model, "synflow", 0.9, example_input=example).masks
    assert all(p.dtype == torch.float32 and torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert masks == pc.prune(copy.deepcopy(model).double(), "synflow", 0.9, example_input=example.double()).masks
