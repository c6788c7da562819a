"""L0: the penalty counts what is in use."""

import pytest
import torch
from torch import nn

from pruning_core.masks.masks import Masks
from pruning_core.methods.l0 import L0
from pruning_core.models.layers.gates import Gated, HardConcreteGate


@pytest.mark.parametrize("outputs", [6, 9])
def test_l0_counts_the_weights_of_a_transposed_convolution_by_output(outputs):
    weight = torch.randn(6, outputs, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    layer = nn.ConvTranspose2d(6, outputs, 3, bias=False).double()
    gate = HardConcreteGate(outputs).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        gate.log_alpha.copy_(torch.linspace(-2, 2, outputs))
    each = 6 * 9 + 0.25 * (weight**2).sum((0, 2, 3))
    expected = (gate.open_probability() * each).sum().item()
    assert L0(weight_decay=0.5).penalty(nn.Sequential(Gated(layer, gate)), Masks()).item() == pytest.approx(expected)


def test_l0_weight_decay_adds_the_squares_of_what_is_in_use():
    model = L0().prepare(
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double(), torch.zeros(1, 4).double()
    )
    gate = model[0].gate
    plain, decayed = (L0(weight_decay=d).penalty(model, Masks()) for d in (0.0, 0.5))
    layer = model[0].layer
    squares = (layer.weight**2).sum(1) + layer.bias**2
    assert (decayed - plain).item() == pytest.approx((0.25 * gate.open_probability() * squares).sum().item())
