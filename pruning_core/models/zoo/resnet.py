"""Residual networks for small images: of He et al. 2016, of SNIP-it, of i-SpaSP's chapter, and wide ones.

They differ in the shortcut where a stage widens: option A takes every second pixel and fills up with zero
channels (no parameters), option B is a 1x1 convolution with batch norm. The modules of option A bear the
names of the widely used checkpoints (``conv1``, ``bn1``, ``layer1.0.conv1``, ..., ``linear``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.zoo.base import LEAK, Shape, conv2d, norm2d, scaled, stages
from pruning_core.models.zoo.chains import Chain


def _shortcut(option: str, inputs: int, outputs: int, stride: int, norm: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if option == "A":
        return ChannelIndex.option_a(inputs, outputs, stride)
    projection = conv2d(inputs, outputs, 1, stride, norm)
    return nn.Sequential(OrderedDict(conv=projection, bn=norm2d(norm, outputs)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, channels, H / stride, W / stride).

    ``leaky``: SNIP-it's form, with leaky ReLUs, and biases in the two convolutions.
    """

    is_block = True
    act: Callable[[Tensor], Tensor]

    def __init__(self, inputs: int, channels: int, stride: int, option: str, norm: str, leaky: bool = False):
        super().__init__()
        self.outputs = channels
        self.conv1, self.bn1 = conv2d(inputs, channels, 3, stride, norm, bias=leaky), norm2d(norm, channels)
        self.conv2, self.bn2 = conv2d(channels, channels, 3, 1, norm, bias=leaky), norm2d(norm, channels)
        self.act = nn.LeakyReLU(LEAK) if leaky else F.relu
        self.shortcut = _shortcut(option, inputs, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last to four times the channels, with a shortcut around them."""

    is_block = True

    def __init__(self, inputs: int, channels: int, stride: int, option: str, norm: str):
        super().__init__()
        self.outputs = 4 * channels
        self.conv1, self.bn1 = conv2d(inputs, channels, 1, 1, norm), norm2d(norm, channels)
        self.conv2, self.bn2 = conv2d(channels, channels, 3, stride, norm), norm2d(norm, channels)
        self.conv3, self.bn3 = conv2d(channels, self.outputs, 1, 1, norm), norm2d(norm, self.outputs)
        self.shortcut = _shortcut(option, inputs, self.outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        return F.relu(self.bn3(self.conv3(hidden)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """1x1 expansion to 6 times the inputs, 3x3 depthwise, 1x1 projection without activation (Sandler et al. 2018).

    (N, inputs, H, W) -> (N, outputs, H / stride, W / stride); the input is added where shapes allow.
    """

    is_block = True

    def __init__(self, inputs: int, outputs: int, stride: int, option: str, norm: str):
        super().__init__()
        self.outputs, expanded = outputs, 6 * inputs
        self.expand, self.bn1 = conv2d(inputs, expanded, 1, 1, norm), norm2d(norm, expanded)
        self.depthwise = nn.Conv2d(expanded, expanded, 3, stride, 1, groups=expanded, bias=norm == "none")
        self.bn2 = norm2d(norm, expanded)
        self.project, self.bn3 = conv2d(expanded, outputs, 1, 1, norm), norm2d(norm, outputs)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self.bn1(self.expand(x)))
        hidden = F.relu6(self.bn2(self.depthwise(hidden)))
        out = self.bn3(self.project(hidden))
        return x + out if self.skip else out


BLOCKS: dict[str, Callable[..., Any]] = {"basic": BasicBlock, "bottleneck": Bottleneck, "inverted": InvertedResidual}


class ResNet(nn.Module):
    """A 3x3 stem, stages of blocks (all but the first start at stride 2), average pool, classifier.

    ``channels`` and ``blocks`` give each stage's; the stem has the channels of the first one. The stages are ``layer1``,
    ``layer2``, ..., or where ``flat``, their blocks stand one after the other in ``blocks``.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        width: float,
        norm: str,
        *,
        channels: Sequence[int],
        blocks: Sequence[int],
        block: str = "basic",
        option: str = "A",
        stem_relu: bool = True,
        flat: bool = False,
    ):
        super().__init__()
        self.stem_relu = stem_relu
        own = [scaled(n, width) for n in channels]
        self.conv1, self.bn1 = conv2d(shape[0], own[0], 3, 1, norm), norm2d(norm, own[0])
        found, features = stages(partial(BLOCKS[block], option=option, norm=norm), own[0], own, blocks)
        named = {f"layer{s}": stage for s, stage in enumerate(found, start=1)}
        if flat:
            named = {"blocks": nn.Sequential(*(part for stage in found for part in stage))}
        self.stages = tuple(named)
        for name, stage in named.items():
            self.add_module(name, stage)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = F.relu(x) if self.stem_relu else x
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class SnipResNet(nn.Module):
    """ImageNet's stem, four stages of blocks (the later three at stride 2), average pool to 2x2, a head of two layers."""

    def __init__(
        self, shape: Shape, classes: int, width: float, norm: str, *, blocks: Sequence[int], dropout: bool = True
    ):
        super().__init__()
        channels = [scaled(n, width) for n in (64, 128, 256, 512)]
        self.conv1, self.bn1 = conv2d(shape[0], channels[0], 7, 2, norm), norm2d(norm, channels[0])
        self.act, self.pool = nn.LeakyReLU(LEAK), nn.MaxPool2d(3, 2, 1)
        block = partial(BasicBlock, option="B", norm=norm, leaky=True)
        (self.layer1, self.layer2, self.layer3, self.layer4), features = stages(block, channels[0], channels, blocks)
        head = {"drop1": 0.3, "fc1": 256, "norm1": None, "act1": None, "drop2": 0.3, "fc2": "classes"}
        self.head = Chain((4 * features,), classes, width, norm, "leaky", dropout=dropout).of(head)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride).

    Where the shape changes the shortcut is a 1x1 convolution that reads the activated input, as the first convolution
    does; elsewhere it passes the raw input on.
    """

    is_block = True

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str):
        super().__init__()
        self.outputs = outputs
        self.bn1, self.conv1 = norm2d(norm, inputs), conv2d(inputs, outputs, 3, stride, norm)
        self.bn2, self.conv2 = norm2d(norm, outputs), conv2d(outputs, outputs, 3, 1, norm)
        changes = stride != 1 or inputs != outputs
        self.shortcut = conv2d(inputs, outputs, 1, stride, norm) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        return beside + self.conv2(F.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """Wide residual network for CIFAR (Zagoruyko and Komodakis 2016): norm and ReLU in front of each convolution.

    Stem of 16 channels, three stages of ``blocks`` blocks with 16 k, 32 k and 64 k channels for ``widening`` k (the later
    two at stride 2), norm, average pool, classifier; no dropout. It has 6 ``blocks`` + 4 layers.
    """

    def __init__(self, shape: Shape, classes: int, width: float, norm: str, *, blocks: int, widening: int):
        super().__init__()
        stem, *channels = (scaled(n, width) for n in (16, 16 * widening, 32 * widening, 64 * widening))
        self.conv1 = conv2d(shape[0], stem, 3, 1, norm)
        block = partial(PreActivationBlock, norm=norm)
        (self.layer1, self.layer2, self.layer3), features = stages(block, stem, channels, [blocks] * 3)
        self.bn = norm2d(norm, features)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1).flatten(1))
