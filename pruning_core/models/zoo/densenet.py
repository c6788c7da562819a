"""DenseNet-BC for CIFAR (Huang et al. 2017) as SiPP and PFP use it: 22 layers, growth 12.

Norm and ReLU stand in front of each convolution. A unit reads everything before it in its block and appends its own
channels; between the blocks a 1x1 convolution halves the channels and an average pool halves height and width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import Shape, conv2d, norm2d, scaled

BLOCKS = 3
BOTTLENECK, COMPRESSION = 4, 2


class Unit(nn.Module):
    """1x1 to four times the growth, 3x3 to the growth, appended: (N, inputs, H, W) -> (N, inputs + growth, H, W)."""

    def __init__(self, inputs: int, inner: int, growth: int, norm: str):
        super().__init__()
        self.bn1, self.conv1 = norm2d(norm, inputs), conv2d(inputs, inner, 1, 1, norm)
        self.bn2, self.conv2 = norm2d(norm, inner), conv2d(inner, growth, 3, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(hidden)))], 1)


class Transition(nn.Module):
    """1x1 convolution to half the channels, average pool 2: (N, inputs, H, W) -> (N, outputs, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int, norm: str):
        super().__init__()
        self.bn = norm2d(norm, inputs)
        self.conv = conv2d(inputs, outputs, 1, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """Stem of twice the growth, three blocks of ``units`` units with transitions between them, average pool, classifier."""

    def __init__(self, shape: Shape, classes: int, width: float, norm: str, *, units: int, growth: int):
        super().__init__()
        channels = scaled(2 * growth, width)
        inner, own = scaled(BOTTLENECK * growth, width), scaled(growth, width)
        self.conv1 = conv2d(shape[0], channels, 3, 1, norm)
        self.blocks = nn.Sequential()
        for b in range(1, BLOCKS + 1):
            block = nn.Sequential()
            for _ in range(units):
                block.append(Unit(channels, inner, own, norm))
                channels += own
            self.blocks.add_module(f"dense{b}", block)
            if b < BLOCKS:
                self.blocks.add_module(f"transition{b}", Transition(channels, channels // COMPRESSION, norm))
                channels //= COMPRESSION
        self.bn = norm2d(norm, channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
