"""Removing channels from torchvision's networks: exact in double precision, or refused in one sentence."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from pruning_core import prunable_attention, prune
from pruning_core.masks.groups import expand
from pruning_core.masks.removal import remove
from pruning_core.masks.tracing import find_groups
from pruning_core.models.layers.attention import PrunableAttention

FAST = ["resnet18", "mobilenet_v2", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
SLOW = [
    "densenet121", "efficientnet_b0", "regnet_y_400mf", "googlenet", "resnext50_32x4d", "mnasnet1_0", "resnet50",
    "vgg16_bn", "convnext_tiny", "vit_b_16", "wide_resnet50_2", "inception_v3", "vgg11", "swin_t", "swin_v2_t",
    "efficientnet_v2_s", "shufflenet_v2_x2_0", "regnet_x_400mf",
]  # fmt: skip
SIZES = {"vgg16_bn": 224, "vgg11": 224, "vit_b_16": 224, "googlenet": 128, "inception_v3": 128}


def network(name: str) -> nn.Module:
    """Random weights of a size that lets signals through, random statistics, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None, num_classes=10).double().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.05)
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("layer_scale"):
                nn.init.ones_(parameter)  # at the usual 1e-6 the output would not move at all
    return model


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_masked_equals_smaller(name):
    model = network(name)
    x = torch.randn(
        (1, 3, SIZES.get(name, 64), SIZES.get(name, 64)), generator=torch.Generator().manual_seed(1)
    ).double()
    groups = {group.name: group for group in find_groups(model, x)}
    generator = torch.Generator().manual_seed(2)
    keep = {}
    for group in groups.values():
        if group.reason_fixed is None:
            keep[group.name] = torch.rand(group.size, generator=generator) > 0.3
            keep[group.name][0] = True
    assert len(keep) >= 5
    masks = expand(keep, groups, {n: p.shape for n, p in model.named_parameters()})
    masked, small = copy.deepcopy(model), copy.deepcopy(model)
    masks.apply_(masked)
    remove(small, masks, [groups[name] for name in keep])
    with torch.no_grad():
        whole, zeroed, cut = model(x), masked(x), small(x)
    assert (whole - zeroed).abs().max() > 1e-6 * whole.abs().max()
    assert (zeroed - cut).abs().max() < 1e-10 * max(1.0, float(zeroed.abs().max()))
    assert sum(p.numel() for p in small.parameters()) < 0.95 * sum(p.numel() for p in model.parameters())


def test_hidden_layers_of_shifted_windows_are_found_in_seconds():
    groups = {
        group.name: group.reason_fixed for group in find_groups(network("swin_t").float(), torch.randn(1, 3, 224, 224))
    }
    assert [name for name, reason in groups.items() if reason is None] == [
        f"features.{stage}.{block}.mlp.0"
        for stage, blocks in ((1, 2), (3, 2), (5, 6), (7, 2))
        for block in range(blocks)
    ]
    assert "LayerNorm" in groups["features.0.0"]


def test_channels_through_layer_norm_are_named_as_fixed():
    model = torchvision.models.vision_transformer.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)
    report = prune(model, "l1_norm", 0.5, example_input=torch.randn(1, 3, 32, 32)).report
    assert any("LayerNorm" in reason for reason in report.not_prunable.values())
    assert report.removed["channels"] == (32, 64)


def test_weights_work_where_channels_do_not():
    result = prune(torchvision.models.shufflenet_v2_x0_5(weights=None), "magnitude", 0.6)
    assert result.report.fraction("weights") == pytest.approx(0.6, abs=1e-6)


def test_networks_made_by_torchvision_are_rebuilt_by_name(tmp_path):
    from pruning_core import load_pruned

    model = torchvision.models.resnet18(weights=None, num_classes=7).eval()
    x = torch.randn(1, 3, 64, 64)
    result = prune(model, "l2_norm", 0.5, example_input=x)
    result.save(tmp_path / "small")
    assert torch.equal(load_pruned(tmp_path / "small")(x), result.shrink().eval()(x))


# Number of hidden layers that one layer reads: inner widths of blocks, plain sequences, perceptrons of transformers.
HIDDEN = {
    "resnet18": 8, "mobilenet_v2": 17, "resnet34": 16, "resnet50": 32, "vgg16_bn": 15, "vit_b_16": 12, "resnext50_32x4d": 32,
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [name if name in ("resnet18", "mobilenet_v2") else pytest.param(name, marks=pytest.mark.slow) for name in HIDDEN],
)
def test_ispasp_prunes_every_hidden_layer_without_code_of_its_own(name):
    model = network(name)
    size = SIZES.get(name, 64)
    x = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1)).double()
    result = prune(model, "ispasp", 0.4, batches=[(x, None)])
    small = result.shrink()
    assert len(result.sites.groups) >= HIDDEN[name]
    with torch.no_grad():
        whole, masked, cut = model(x), result.model.eval()(x), small.eval()(x)
    scale = max(1.0, float(masked.abs().max()))
    assert (whole - masked).abs().max() > 1e-6 * whole.abs().max()
    assert (masked - cut).abs().max() < 1e-10 * scale
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())
    for group in result.sites.groups.values():
        readers = {member.layer for member in group.consumes}
        assert len(readers) == 1


def test_ispasp_prunes_heads_of_a_vision_transformer():
    model = torchvision.models.vision_transformer.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10)
    nn.init.normal_(model.heads.head.weight)
    model = prunable_attention(model.double().eval())
    x = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(1)).double()
    small = prune(model, "ispasp", 0.5, batches=[(x, None)]).shrink()
    heads = [module.num_heads for module in small.modules() if isinstance(module, PrunableAttention)]
    assert heads == [2, 2]
    with torch.no_grad():
        assert (model(x) - small(x)).abs().max() > 1e-3
