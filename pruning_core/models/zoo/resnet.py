"""Residual networks for CIFAR (He et al. 2016): three stages of 16, 32 and 64 channels, no bias in
convolutions.

They differ in the shortcut where a stage widens: option A takes every second pixel and fills up with zero
channels (no parameters), option B is a 1x1 convolution with batch norm. The modules of option A bear the
names of the widely used checkpoints (``conv1``, ``bn1``, ``layer1.0.conv1``, ..., ``linear``).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import (
    Builder,  # fmt: skip
    ModelInfo,  # fmt: skip
    Shape,  # fmt: skip
    he_fan_in,  # fmt: skip
    he_fan_out,  # fmt: skip
    initialiser,  # fmt: skip
    norm2d,  # fmt: skip
    scaled,  # fmt: skip
    small_normal,  # fmt: skip
)


def _conv(inputs: int, outputs: int, kernel: int, stride: int, norm: str) -> nn.Conv2d:
    # Where a norm layer follows its shift is the bias; without one the convolution needs its own.
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=norm == "none")


def _shortcut(option: str, inputs: int, outputs: int, stride: int, norm: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if option == "A":
        from pruning_core.models.layers.index import ChannelIndex

        return ChannelIndex.option_a(inputs, outputs, stride)
    projection = nn.Sequential()
    projection.add_module("conv", _conv(inputs, outputs, 1, stride, norm))
    projection.add_module("bn", norm2d(norm, outputs))
    return projection


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, channels, H / stride, W / stride)."""

    is_block = True

    def __init__(self, inputs: int, channels: int, stride: int, option: str, norm: str):
        super().__init__()
        self.outputs = channels
        self.conv1 = _conv(inputs, channels, 3, stride, norm)
        self.bn1 = norm2d(norm, channels)
        self.conv2 = _conv(channels, channels, 3, 1, norm)
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
        self.conv1 = _conv(inputs, channels, 1, 1, norm)
        self.bn1 = norm2d(norm, channels)
        self.conv2 = _conv(channels, channels, 3, stride, norm)
        self.bn2 = norm2d(norm, channels)
        self.conv3 = _conv(channels, self.outputs, 1, 1, norm)
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
        width: float = 1.0,
        norm: str = "batch",
        option: str = "A",
        block: Callable[..., BasicBlock | Bottleneck] = BasicBlock,
        stem_relu: bool = True,
    ):
        super().__init__()
        self.stem_relu = stem_relu
        inputs = scaled(16, width)
        self.conv1 = _conv(shape[0], inputs, 3, 1, norm)
        self.bn1 = norm2d(norm, inputs)
        stages = []
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            stage = nn.Sequential()
            for i in range(blocks):
                part = block(inputs, scaled(channels, width), stride if i == 0 else 1, option, norm)
                stage.append(part)
                inputs = part.outputs
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        if self.stem_relu:
            x = F.relu(x)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _resnet(depth: int, **variant) -> Builder:
    blocks = (depth - 2) // 6
    return lambda shape, classes, width, norm: ResNet(blocks, shape, classes, width, norm, **variant)


_OPTION_A = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}

MODELS = {
    f"resnet{depth}": ModelInfo(
        build=_resnet(depth),
        initialise=initialiser(conv=he_fan_in, linear=he_fan_in),
        paper="he2016resnet",
        about=f"ResNet-{depth} with option-A shortcuts",
        parameters=parameters,
    )
    for depth, parameters in _OPTION_A.items()
} | {
    "resnet20_b": ModelInfo(
        build=_resnet(20, option="B"),
        initialise=initialiser(conv=he_fan_out),
        paper="baykal2019sipp",
        about="ResNet-20 with option-B shortcuts",
        parameters=272_474,
    ),
    "resnet56_rni": ModelInfo(
        build=_resnet(56, stem_relu=False),
        initialise=initialiser(conv=he_fan_out, linear=small_normal, norm_scale=0.5),
        paper="suteu2022rni",
        about="ResNet-56 with option-A shortcuts and no ReLU behind the stem; batch norm starts at scale 0.5",
        parameters=853_018,
    ),
    "resnet56_bottleneck": ModelInfo(
        build=_resnet(56, option="B", block=Bottleneck),
        initialise=initialiser(conv=he_fan_out),
        paper="baykal2019sipp",
        about="what SiPP calls ResNet56: 27 bottleneck blocks, 86 layers with weights",
        parameters=869_530,
    ),
    "resnet110_bottleneck": ModelInfo(
        build=_resnet(110, option="B", block=Bottleneck),
        initialise=initialiser(conv=he_fan_out),
        paper="baykal2019sipp",
        about="what SiPP calls ResNet110: 54 bottleneck blocks, 167 layers with weights",
        parameters=1_704_154,
    ),
}
