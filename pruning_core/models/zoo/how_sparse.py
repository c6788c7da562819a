"""The networks of How Sparse Can We Prune (Zhang et al. 2024); its VGG-16 stands with the others of that family.

All start as in the official code: weights of convolutions and linear layers normal with variance 2 / inputs, biases 0,
batch norm at scale 1 and shift 0. The perceptrons and AlexNet (which resizes its images to 224x224) take images of any size.
The official LeNet and CNet fit 32x32 images only; here the first linear layer has the size that other images need.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from pruning_core.models.zoo.base import Builder, Chain, Shape, family, scaled, stages
from pruning_core.models.zoo.blocks import BlockNet
from pruning_core.models.zoo.initialisers import he_start
from pruning_core.models.zoo.perceptrons import perceptron
from pruning_core.models.zoo.resnet import BasicBlock, Bottleneck

ALEXNET_SIDE = 224
FC12 = (1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100)
FC13 = (*FC12[:-2], 250, *FC12[-2:])


def _with_head(layers: Chain, positions: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """The convolutions, then linear layers ``fc1, ...`` on their maps of so many positions, with ReLU between them."""
    layers["flatten"] = nn.Flatten()
    layers.inputs, layers.norm = layers.inputs * positions, "none"
    for i, units in enumerate(hidden, start=1):
        layers.linear(i, units, act="fc_act")
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(layers.inputs, classes)
    return nn.Sequential(layers)


def _lenet(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 16, pool, conv5 32, pool, 120, 84, classes; nothing padded."""
    layers = Chain(shape[0], width)
    for i, channels in enumerate((16, 32), start=1):
        layers.conv(i, channels, 5)
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    height, side = (((size - 4) // 2 - 4) // 2 for size in shape[1:])
    return _with_head(layers, height * side, (120, 84), classes)


def _cnet(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 64, 64, 32, 16 with bias, norm and ReLU, nothing padded; one pool, 120, 84, classes."""
    layers = Chain(shape[0], width, norm)
    for i, channels in enumerate((64, 64, 32, 16), start=1):
        layers.conv(i, channels, 5)
    layers["pool"] = nn.MaxPool2d(2)
    height, side = ((size - 16) // 2 for size in shape[1:])
    return _with_head(layers, height * side, (120, 84), classes)


def _alexnet(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """Images enlarged to 224x224, five convolutions, three overlapping pools, 4096, 4096, classes; no dropout, no norm."""
    layers, size = Chain(shape[0], width), (ALEXNET_SIDE, ALEXNET_SIDE)
    if shape[1:] != size:
        layers["resize"] = nn.Upsample(size=size, mode="nearest")  # 32x32: every pixel 7x7 times
    convolutions = ((96, 11, 4, 1), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
    for i, (channels, kernel, stride, padding) in enumerate(convolutions, start=1):
        layers.conv(i, channels, kernel, stride, padding)
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(3, 2)
    return _with_head(layers, 5 * 5, (4096, 4096), classes)


def _resnet(blocks: Sequence[int], block: Callable[..., BasicBlock | Bottleneck]) -> Builder:
    """A 3x3 stem of 64 channels at full resolution, then stages of 64, 128, 256, 512; the later three start at stride 2."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        channels = [scaled(n, width) for n in (64, 128, 256, 512)]
        parts, features = stages(partial(block, option="B", norm=norm), channels[0], channels, blocks)
        return BlockNet(shape[0], channels[0], [part for stage in parts for part in stage], features, classes, norm)

    return build


_BUILDERS = {
    "fc2": perceptron([100]),
    "fc5": perceptron([1000, 600, 300, 100]),
    "fc12": perceptron(FC12),
    "fc13": perceptron(FC13),
    "lenet_how_sparse": _lenet,
    "cnet": _cnet,
    "alexnet_how_sparse": _alexnet,
    "resnet18_how_sparse": _resnet((2, 2, 2, 2), BasicBlock),
    "resnet50_how_sparse": _resnet((3, 4, 6, 3), Bottleneck),
}
MODELS = family({name: (builder, he_start) for name, builder in _BUILDERS.items()})
