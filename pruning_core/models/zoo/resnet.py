"""Residual networks for CIFAR (He et al. 2016): three stages of 16, 32 and 64 channels, no bias in convolutions.

They differ in the shortcut where a stage widens: option A takes every second pixel and fills up with zero
channels (no parameters), option B is a 1x1 convolution with batch norm. The modules of option A bear the
names of the widely used checkpoints (``conv1``, ``bn1``, ``layer1.0.conv1``, ..., ``linear``).
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.zoo.base import Builder, Shape, conv2d, family, norm2d, scaled, stages
from pruning_core.models.zoo.initialisers import he_fan_in, he_fan_out, initialiser, rni_start


def _shortcut(option: str, inputs: int, outputs: int, stride: int, norm: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if option == "A":
        return ChannelIndex.option_a(inputs, outputs, stride)
    projection = conv2d(inputs, outputs, 1, stride, norm)
    return nn.Sequential(OrderedDict(conv=projection, bn=norm2d(norm, outputs)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, channels, H / stride, W / stride)."""

    is_block = True

    def __init__(self, inputs: int, channels: int, stride: int, option: str, norm: str):
        super().__init__()
        self.outputs = channels
        self.conv1 = conv2d(inputs, channels, 3, stride, norm)
        self.bn1 = norm2d(norm, channels)
        self.conv2 = conv2d(channels, channels, 3, 1, norm)
        self.bn2 = norm2d(norm, channels)
        self.shortcut = _shortcut(option, inputs, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last to four times the channels, with a shortcut around them."""

    is_block = True

    def __init__(self, inputs: int, channels: int, stride: int, option: str, norm: str):
        super().__init__()
        self.outputs = 4 * channels
        self.conv1 = conv2d(inputs, channels, 1, 1, norm)
        self.bn1 = norm2d(norm, channels)
        self.conv2 = conv2d(channels, channels, 3, stride, norm)
        self.bn2 = norm2d(norm, channels)
        self.conv3 = conv2d(channels, self.outputs, 1, 1, norm)
        self.bn3 = norm2d(norm, self.outputs)
        self.shortcut = _shortcut(option, inputs, self.outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        return F.relu(self.bn3(self.conv3(hidden)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, three stages of ``blocks`` blocks (the later two at stride 2), average pool, classifier."""

    def __init__(
        self,
        blocks: int,
        shape: Shape,
        classes: int,
        width: float,
        norm: str,
        option: str = "A",
        block: Callable[..., BasicBlock | Bottleneck] = BasicBlock,
        stem_relu: bool = True,
    ):
        super().__init__()
        self.stem_relu = stem_relu
        channels = [scaled(n, width) for n in (16, 32, 64)]
        self.conv1, self.bn1 = conv2d(shape[0], channels[0], 3, 1, norm), norm2d(norm, channels[0])
        parts, features = stages(partial(block, option=option, norm=norm), channels[0], channels, [blocks] * 3)
        self.layer1, self.layer2, self.layer3 = parts
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = F.relu(x) if self.stem_relu else x
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _resnet(depth: int, **variant) -> Builder:
    return partial(ResNet, (depth - 2) // 6, **variant)


_HE, _SIPP = initialiser(conv=he_fan_in, linear=he_fan_in), initialiser(conv=he_fan_out)

MODELS = family({f"resnet{depth}": (_resnet(depth), _HE) for depth in (20, 32, 44, 56, 110)} | {
    "resnet20_b": (_resnet(20, option="B"), _SIPP),
    "resnet56_rni": (_resnet(56, stem_relu=False), rni_start),
    "resnet56_bottleneck": (_resnet(56, option="B", block=Bottleneck), _SIPP),
    "resnet110_bottleneck": (_resnet(110, option="B", block=Bottleneck), _SIPP),
})  # fmt: skip
