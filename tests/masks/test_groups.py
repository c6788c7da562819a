"""Channel groups of small networks: what is coupled, what is refused, and that cutting equals masking."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.errors import BadInput, Unprunable
from pruning_core.masks.groups import expand
from pruning_core.masks.removal import remove
from pruning_core.masks.tracing import find_groups
from pruning_core.models.build import build_model
from pruning_core.models.layers.gates import Gated, HardConcreteGate
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.models.layers.protocol import to_plain


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 6, 1)
        self.norm, self.c = nn.BatchNorm2d(10), nn.Conv2d(10, 3, 1)

    def forward(self, x):
        return self.c(torch.tanh(self.norm(torch.cat([self.a(x), self.b(x)], 1))))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 3, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Squeeze(nn.Module):
    """A squeeze-and-excitation block: a sigmoid of a zeroed channel is one half, not zero."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 1)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x):
        x = F.silu(self.a(x))
        return self.b(x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))))


class OptionA(nn.Module):
    """Two stages with a parameter-free shortcut that widens from 4 to 7 channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = nn.Conv2d(4, 7, 3, 2, 1), nn.BatchNorm2d(7)
        self.conv2, self.norm2 = nn.Conv2d(7, 7, 3, padding=1), nn.BatchNorm2d(7)
        self.shortcut = ChannelIndex.option_a(4, 7, 2)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        x = F.relu(self.norm0(self.stem(x)))
        x = F.relu(self.shortcut(x) + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 6, 3), nn.ConvTranspose2d(6, 5, 2, stride=2), nn.Conv2d(5, 3, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


NETWORKS = {
    "flatten": lambda: nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(180, 6), nn.GELU(), nn.Linear(6, 3)
    ),
    "concat": Concat,
    "grouped": Grouped,
    "squeeze": Squeeze,
    "option a": OptionA,
    "transposed": Transposed,
    "depthwise": lambda: nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1)),
    "depthwise twice": lambda: nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 3, 1)),
    "prelu": lambda: nn.Sequential(nn.Conv2d(2, 6, 1), nn.PReLU(6), nn.Conv2d(6, 3, 1)),
    "instance norm": lambda: nn.Sequential(nn.Conv2d(2, 6, 1), nn.InstanceNorm2d(6, affine=True), nn.Conv2d(6, 3, 1)),
    "norm without scale": lambda: nn.Sequential(nn.Conv2d(2, 6, 1), nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 3, 1)),
    "sigmoid norm": lambda: nn.Sequential(nn.Conv2d(2, 6, 1), SigmoidBatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1)),
    "gate": lambda: nn.Sequential(Gated(nn.Conv2d(2, 6, 1), HardConcreteGate(6)), nn.ReLU(), nn.Conv2d(6, 3, 1)),
    "1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 1)),
}  # fmt: skip


def made(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[name]().double().eval()
        for module in model.modules():
            for leaf, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d, nn.InstanceNorm2d, nn.PReLU, HardConcreteGate)):
                    if leaf == "running_var":
                        nn.init.uniform_(tensor, 0.5, 2)
                    elif tensor.is_floating_point():
                        nn.init.normal_(tensor)
    return model


X = torch.randn((3, 2, 8, 8), generator=torch.Generator().manual_seed(4)).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_cutting_equals_masking(name):
    model = made(name)
    groups = {group.name: group for group in find_groups(model, X[:1])}
    free = [group for group in groups.values() if group.reason_fixed is None]
    assert free
    keep = {group.name: torch.arange(group.size) % 2 == 1 for group in free}
    masks = expand(keep, groups, {n: p.shape for n, p in model.named_parameters()})
    masked, small = copy.deepcopy(model), copy.deepcopy(model)
    masks.apply_(masked)
    kept = remove(small, masks, free)
    with torch.no_grad():
        whole, zeroed, cut = model(X), masked(X), small(X)
        plain = to_plain(copy.deepcopy(small))(X)
    assert (whole - zeroed).abs().max() > 1e-6
    assert (zeroed - cut).abs().max() < 1e-10
    assert (cut - plain).abs().max() < 1e-10
    for name_, parameter in masked.named_parameters():
        assert torch.equal(kept.slice(name_, parameter), small.get_parameter(name_))


def test_channels_behind_a_flatten_own_several_columns():
    group = find_groups(made("flatten"), X[:1])[0]
    (reader,) = group.consumes
    assert torch.bincount(reader.channels).tolist() == [36] * 5
    assert reader.indices[reader.channels == 1].tolist() == list(range(36, 72))


def test_a_grouped_convolution_loses_the_same_channels_in_every_group():
    groups = {group.name: group for group in find_groups(made("grouped"), X[:1])}
    assert groups["a"].size == 2  # 8 channels in 4 groups of 2
    assert groups["b"].size == 3  # 12 channels in 4 groups of 3
    (rows, *_) = groups["b"].produces
    assert rows.indices[rows.channels == 0].tolist() == [0, 3, 6, 9]


def test_a_residual_sum_ties_its_producers():
    model = build_model("resnet20_b", ((3, 32, 32), 10), width=0.25, seed=0)
    stem = find_groups(model, torch.randn(1, 3, 32, 32))[0]
    producers = {member.layer for member in stem.produces}
    assert len(producers) == 4  # the stem and the last convolution of three blocks


class Numpy(nn.Module):
    """What leaves torch and comes back cannot be followed in between."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.b(torch.from_numpy(self.a(x).detach().numpy()))


class BareParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.scale = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 3, 1), nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x):
        return self.b(self.a(x) * self.scale)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(2, 6, 1), nn.GroupNorm(2, 6), nn.Conv2d(6, 3, 1)), "GroupNorm '1'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.LayerNorm(6), nn.Linear(6, 3)), "LayerNorm '2'"),
        (BareParameter(), None),
        (nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 1, groups=3), nn.Conv2d(6, 3, 1)), None),
        (nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 12, 1, groups=6), nn.Conv2d(12, 3, 1)), None),
        (nn.Sequential(nn.Conv2d(2, 1, 1), nn.Conv2d(1, 3, 1)), "all together"),
    ],
)
def test_what_cannot_be_cut_exactly_says_why(model, reason):
    first = find_groups(model, torch.randn(1, 2, 8, 8))[0]
    if reason is None:
        assert first.reason_fixed is None
    else:
        assert reason in first.reason_fixed
    assert find_groups(model, torch.randn(1, 2, 8, 8))[-1].reason_fixed == "they are outputs of the network"


def test_a_shared_parameter_is_fixed_and_the_rest_is_free():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5), nn.Linear(5, 2))
    model[1].weight = model[0].weight
    groups = {group.name: group.reason_fixed for group in find_groups(model, torch.randn(1, 8))}
    assert groups == {
        "0": "'1.weight' and '0.weight' are one shared parameter", "2": None, "3": "they are outputs of the network",
    }  # fmt: skip


def test_one_layer_under_two_names_is_no_shared_parameter():
    layer = nn.Linear(8, 8)
    groups = find_groups(nn.Sequential(nn.Linear(4, 8), layer, nn.ReLU(), layer, nn.Linear(8, 2)), torch.randn(1, 4))
    assert [(group.name, group.size, group.reason_fixed) for group in groups[:-1]] == [("0", 8, None)]


def test_an_example_that_does_not_fit_is_named():
    with pytest.raises(BadInput, match="example_input does not pass through Sequential"):
        find_groups(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.randn(1, 2, 8, 8))


def test_a_search_that_takes_too_long_is_refused():
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x):
            import time

            for _ in range(200):
                time.sleep(0.05)
            return self.a(x)

    with pytest.raises(Unprunable, match=r"not found within 0\.5 s"):
        find_groups(Slow(), torch.randn(1, 8), time_limit=0.5)


def test_finding_leaves_the_network_as_it_is():
    model = made("option a").train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    find_groups(model, X[:1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_empty_group_is_refused():
    model = made("depthwise")
    groups = {group.name: group for group in find_groups(model, X[:1])}
    masks = expand({"0": torch.zeros(6, dtype=torch.bool)}, groups, {n: p.shape for n, p in model.named_parameters()})
    with pytest.raises(BadInput, match="no channel left"):
        remove(model, masks, groups.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_frozen_networks_can_be_cut(dtype):
    from pruning_core import prune

    model = made("depthwise").to(dtype).requires_grad_(False)
    small = prune(model, "l1_norm", 0.5, example_input=X[:1].to(dtype)).shrink()
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in small.parameters())
    assert small[1].groups == 3


def test_a_way_outside_of_torch_is_refused():
    from pruning_core import prune

    with pytest.raises(Unprunable, match="channels of a: 7 of them are read by no layer"):
        prune(Numpy(), "l1_norm", 0.5, example_input=torch.randn(1, 8))
