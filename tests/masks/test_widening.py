"""Two networks are compared in double precision without a copy of their weights, where nothing is lost by it; else with one."""

from unittest.mock import patch

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import Unprunable
from pruning_core.masks import comparing
from pruning_core.masks.widening import PART, NotWidened, Widened, widening


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.ConvTranspose2d(8, 6, 3), nn.Flatten(),
        nn.LayerNorm(6 * 64), nn.Linear(6 * 64, 5),
    ).eval()  # fmt: skip


class Own(nn.Module):
    """A convolution, and what ``step`` does with its output and a tensor of the network's own."""

    def __init__(self, step):
        super().__init__()
        self.conv, self.head, self.step = nn.Conv2d(3, 12, 3), nn.Linear(12, 2), step
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 12))

    def forward(self, x):
        y = self.conv(x)
        return self.head(self.step(self, y).mean((2, 3)))


def rewritten(network, y):
    network.scale.data.clamp_(max=1)
    return y * network.scale.view(1, -1, 1, 1)


def filled(network, y):
    out = torch.zeros(y.shape)
    out[:] = y
    return out


LEFT = {
    "lowered": lambda network, y: y.float(),
    "a parameter by hand": lambda network, y: y * network.scale.view(1, -1, 1, 1),
    "a parameter that is written to": rewritten,
    "zeros of torch's own precision": filled,
    "an addition in place": lambda network, y: torch.zeros_like(y, dtype=torch.float32).add_(y),
}


def test_the_outputs_are_those_of_a_copy_in_double_precision():
    network, x = plain(), torch.randn(2, 3, 8, 8).double()
    twin = widening(network)
    with torch.no_grad(), Widened():
        found = twin(x)
    with torch.no_grad():
        assert torch.equal(found, comparing.in_double(network)(x))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_large_linear_layer_is_widened_in_parts():
    layer = nn.Linear(1000, 2 * PART // 1000 + 7)
    x = torch.randn(3, 1000).double()
    twin = widening(layer)
    with torch.no_grad(), Widened():
        found = twin(x)
    torch.testing.assert_close(found, layer.double()(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", LEFT)
def test_what_would_lose_precision_or_be_lost_ends_the_pass_and_changes_nothing(name):
    network = Own(LEFT[name]).eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    twin, x, mode = widening(network), torch.randn(1, 3, 5, 5).double(), Widened()
    with mode, pytest.raises(NotWidened), torch.no_grad():
        twin(x)
    assert mode.over and torch.is_grad_enabled()
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in before.items())


@pytest.mark.parametrize("build", [plain, *(lambda step=step: Own(step).eval() for step in LEFT.values())])
def test_a_copy_is_made_only_where_it_is_needed(build):
    """Whatever way the comparison goes, equal networks pass it."""
    network = build()
    with patch.object(comparing, "in_double", wraps=comparing.in_double) as copies:
        comparing.compare(network, network, torch.randn(1, 3, 8, 8))
    assert copies.called == (not isinstance(network, nn.Sequential))


@pytest.mark.parametrize("size", [1e-7, 1e-3])
def test_a_difference_too_small_for_single_precision_is_seen(size):
    network, other = plain(), plain()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        other[0].weight[0, 0, 0, 0] *= 1 + size
    with pytest.raises(Unprunable, match="differ by"):
        comparing.compare(network, other, torch.randn(1, 3, 8, 8))


def test_networks_under_a_compiler_are_not_run_so():
    compiled = plain()
    compiled.compile(backend="eager")
    assert widening(compiled) is None
    assert widening(torch.jit.script(plain())) is None


def test_a_cut_takes_the_short_way():
    network = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval()
    result = pc.prune(network, "l1_norm", 0.5, example_input=torch.randn(1, 3, 8, 8))
    with patch.object(comparing, "in_double", side_effect=AssertionError("a copy was made")):
        small = result.shrink()
    x = torch.randn(2, 3, 8, 8).double()
    assert len(small[0].weight) < 12
    torch.testing.assert_close(small.double()(x), result.model.double()(x), rtol=1e-12, atol=1e-12)


def test_complex_weights_keep_their_imaginary_part():
    weight, inputs = torch.randn(3, 4, dtype=torch.complex64), torch.randn(2, 4, dtype=torch.complex128)
    with torch.no_grad(), Widened():
        found = nn.functional.linear(inputs, weight)
    assert torch.equal(found, nn.functional.linear(inputs, weight.to(torch.complex128)))
