"""The groups that torch-pruning finds, wherever it is right: an oracle with another algorithm."""

import warnings

import pytest
import torch
import torch_pruning
import torchvision
from torch import nn

import pruning_core as pc
from pruning_core.masks.finder.grouping import PRODUCERS

ZOO = [
    "lenet5",
    "vgg8",
    "resnet20_b",
    "densenet22",
    "cnn5",
    "basic4",
    "inverted4",
    "wrn16_8",
    "mlp5_snip",
    "resnet18_snip",
]
TORCHVISION = {
    "resnet18": 64, "mobilenet_v2": 64, "squeezenet1_1": 64, "efficientnet_b0": 64, "regnet_y_400mf": 64, "mnasnet0_5": 64,
    "densenet121": 64, "googlenet": 128, "resnext50_32x4d": 64, "inception_v3": 128, "vgg11_bn": 64, "wide_resnet50_2": 64,
    "mobilenet_v3_small": 64,
}  # fmt: skip


def theirs(model: nn.Module, example: torch.Tensor) -> list[set]:
    """(parameter, dim, index) of every entry of each group, by torch-pruning; those of outputs are left out."""
    names = {module: name for name, module in model.named_modules()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(model, example)
        every = list(graph.get_all_groups(root_module_types=list(PRODUCERS)))
    found = []
    for group in every:
        entries, read = set(), False
        for item in group:
            module, out = item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)
            if isinstance(module, PRODUCERS):
                read |= not out
                width = module.weight.shape[0 if out else 1]
                entries |= {(f"{names[module]}.weight", 0 if out else 1, index % width) for index in item.idxs}
        if read:
            found.append(entries)
    return found


def ours(model: nn.Module, example: torch.Tensor) -> list[set]:
    """The same of our groups that somebody reads."""
    layers = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, PRODUCERS)}
    return [
        {(m.parameter, m.dim, index) for m in group.members if m.parameter in layers for index in m.indices.tolist()}
        for group in pc.find_groups(model, example)
        if group.consumes
    ]


@pytest.mark.parametrize("name", ZOO)
def test_groups_of_the_zoo(name):
    shape = pc.MODELS[name].shape
    model, example = pc.build_model(name, (shape, 10), width=0.25, seed=0).eval(), torch.randn(1, *shape)
    same(ours(model, example), theirs(model, example))


@pytest.mark.parametrize(
    "name", [name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION]
)
def test_groups_of_torchvision(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.randn(1, 3, TORCHVISION[name], TORCHVISION[name])
    same(ours(model, example), theirs(model, example))


def same(first: list[set], second: list[set]) -> None:
    assert sorted(map(sorted, first)) == sorted(map(sorted, second))
