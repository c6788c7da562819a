"""Methods on a device choose what they choose on the CPU."""

import copy

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.methods.base import METHODS, as_method
from pruning_core.methods.shared.products import largest_products, row_by_row
from pruning_core.methods.shared.sensitivities import sensitivity
from tests.methods.penalised_networks import network

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 4, 2, groups=2, stride=2), (4, 6, 6)),
}
batches = [
    (torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(s)), torch.arange(16) % 10) for s in (0, 1)
]


def on(device, given):
    return [(inputs.to(device, torch.float64), labels.to(device)) for inputs, labels in given]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_makes_the_same_choice_as_on_the_cpu(name, device):
    """In double precision, so that no order of summation decides; masks on the CPU, the network where it was."""
    model = as_method(name).prepare(network(), torch.zeros(1, 1, 8, 8, dtype=torch.float64)).double()
    there = copy.deepcopy(model).to(device)
    here = pc.prune(model, name, 0.5, batches=on("cpu", batches))
    found = pc.prune(there, name, 0.5, batches=on(device, batches))
    assert found.masks == here.masks
    assert {mask.device.type for mask in found.masks.values()} == {"cpu"}
    for one, other in zip(found.model.state_dict().values(), here.model.state_dict().values(), strict=True):
        assert one.device.type == device
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("kind", LAYERS)
def test_sensitivities_without_compiled_loops_are_those_with_them(kind, reduce, device):
    make, shape = LAYERS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = make().double()
    inputs = torch.randn(7, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    here = sensitivity(layer, [inputs], reduce)
    there = sensitivity(copy.deepcopy(layer).to(device), [inputs.to(device)], reduce)
    assert (here.positions, there.weight.device.type) == (there.positions, device)
    torch.testing.assert_close(there.weight.cpu(), here.weight, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(there.channel.cpu(), here.channel, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("mean", [False, True])
def test_products_stay_on_their_device(mean, device):
    generator = torch.Generator().manual_seed(0)
    columns, above, below = (torch.rand((2, 3, n), generator=generator).to(device) for n in (5, 4, 4))
    weight = torch.randn((4, 5), generator=generator).to(device)
    found = largest_products(columns, above, below, weight, mean)
    assert found.device.type == device
    torch.testing.assert_close(found, row_by_row(columns, above, below, weight, mean), rtol=1e-6, atol=0)
