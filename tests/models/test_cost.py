"""The numbers of cost and size agree with the papers' tables and with sums done by hand; measuring changes nothing."""

import copy

import pytest
import torch
from torch import nn

from pruning_core import prune
from pruning_core.errors import BadInput, BadType
from pruning_core.models import cost, timing
from pruning_core.models.build import build_model


@pytest.mark.parametrize(
    ("name", "data", "macs"),
    [
        ("lenet300", "mnist", 266_200),  # sipp_pfp.md
        ("vgg16_rni", "cifar10", 313_201_664),  # rni.md
        ("resnet56_rni", "cifar10", 125_485_696),  # rni.md
    ],
)
def test_macs_agree_with_the_papers(name, data, macs):
    model = build_model(name, data, seed=0)
    shape = (1, 28, 28) if data == "mnist" else (3, 32, 32)
    example = torch.zeros(2, *shape)
    assert cost.count_macs(model, example) == macs
    weights = dict(model.named_modules())
    positions = cost.output_positions(model, example)
    assert sum(weights[layer].weight.numel() * times for layer, times in positions.items()) == macs


@pytest.mark.parametrize(
    ("layer", "example", "by_hand", "positions"),
    [
        (nn.Linear(5, 3), (2, 5), 15, 1),
        (nn.Linear(5, 3, bias=False), (2, 7, 5), 15 * 7, 7),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8), 6 * 4 * 9 * 16, 16),
        (nn.Conv2d(4, 8, 3, groups=4), (1, 4, 5, 5), 8 * 9 * 9, 9),
        (nn.Conv1d(2, 3, 3, padding=1), (1, 2, 10), 2 * 3 * 3 * 10, 10),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 3, 3), 4 * 6 * 4 * 9, 9),
    ],
)
def test_macs_and_positions_of_one_layer(layer, example, by_hand, positions):
    model = nn.Sequential(layer)
    assert cost.macs_by_layer(model, torch.randn(example)) == {"0": by_hand}
    assert cost.output_positions(model, torch.randn(example)) == {"0": positions}


def test_a_layer_used_twice_counts_twice_and_norms_do_not_count():
    shared = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU(), shared)
    assert cost.macs_by_layer(model, torch.zeros(1, 3, 4, 4)) == {"0": 2 * 9 * 16}
    assert cost.output_positions(model, torch.zeros(1, 3, 4, 4)) == {"0": 32}
    assert cost.count_parameters(model) == 12 + 6


def test_attention_counts_its_weights_only():
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    tokens = 5
    weights = 3 * 8 * 8 + 8 * 8 + 2 * 8 * 16
    assert cost.count_macs(model, torch.randn(1, tokens, 8)) == weights * tokens


def test_measuring_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3))
    model.train()
    model[1].eval()
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    example = torch.zeros(2, 1, 8, 8)
    for call in (cost.count_macs, cost.macs_by_layer, cost.output_positions):
        call(model, example)
    timing.latency(model, example, repeats=2, warmup=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_state_is_restored_after_a_failure():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).train()
    with pytest.raises(BadInput, match=r"cannot take inputs of shape \(1, 5\)"):
        cost.count_macs(model, torch.zeros(1, 5))
    assert model.training
    assert model[1].training
    assert not model[0]._forward_hooks


def test_size_on_disk_counts_shared_tensors_once_and_buffers_too():
    tied = nn.Sequential(nn.Linear(50, 50, bias=False), nn.Linear(50, 50, bias=False))
    apart = cost.size_on_disk(tied)
    tied[1].weight = tied[0].weight
    assert apart - cost.size_on_disk(tied) >= 50 * 50 * 4
    assert 0 < cost.size_on_disk(tied) - 50 * 50 * 4 < 500
    assert cost.size_on_disk(nn.BatchNorm2d(100)) > 4 * 100 * 4


def test_sparsity_counts_zeros_of_convolutions_and_linear_layers():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight[0] = 0
        model[1].weight.zero_()
    assert cost.sparsity_of(model) == 1 / 20
    with pytest.raises(BadInput, match="no convolution or linear layer"):
        cost.sparsity_of(nn.BatchNorm2d(3))


def test_training_costs_three_passes():
    assert cost.training_macs(1_000, 50) == 150_000


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: cost.count_macs(nn.Linear(2, 2), [1, 2]), BadType, "must be a tensor"),
        (lambda: cost.count_macs(nn.Linear(2, 2), torch.zeros(0, 2)), BadInput, "at least one sample"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def test_the_projections_of_attention_are_used_once_a_token():
    model, x = Attending(), torch.zeros(2, 5, 8)
    positions = cost.output_positions(model, x)
    assert positions == {"attention": 5, "attention.out_proj": 5, "head": 5}
    weights = {"attention": 3 * 64, "attention.out_proj": 64, "head": 24}
    assert sum(positions[name] * weights[name] for name in weights) == cost.count_macs(model, x)
    report = prune(model, "magnitude", 0.5, of="macs", example_input=x).report
    assert report.removed["macs"][1] == cost.count_macs(model, x)
