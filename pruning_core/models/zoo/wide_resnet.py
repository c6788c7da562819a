"""Wide residual networks for CIFAR (Zagoruyko and Komodakis 2016): norm and ReLU in front of each convolution.

``wrn<depth>_<k>`` has (depth - 4) / 6 blocks a stage and 16 k, 32 k and 64 k channels behind a stem of 16; no dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import Builder, ModelInfo, Shape, he_fan_out, initialiser, norm2d, scaled


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride).

    Where the shape changes the shortcut is a 1x1 convolution that reads the activated input, as the first convolution
    does; elsewhere it passes the raw input on.
    """

    is_block = True

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str):
        super().__init__()
        bias = norm == "none"
        self.bn1 = norm2d(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
        self.bn2 = norm2d(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bias)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        beside = x if self.shortcut is None else self.shortcut(active)
        return beside + self.conv2(F.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """Stem of 16 channels, three stages of ``blocks`` blocks (the later two at stride 2), norm, average pool, classifier."""

    def __init__(self, blocks: int, widening: int, shape: Shape, classes: int, width: float = 1.0, norm: str = "batch"):
        super().__init__()
        channels = scaled(16, width)
        self.conv1 = nn.Conv2d(shape[0], channels, 3, 1, 1, bias=norm == "none")
        stages = []
        for base, stride in ((16, 1), (32, 2), (64, 2)):
            outputs = scaled(base * widening, width)
            stage = nn.Sequential()
            for b in range(blocks):
                stage.append(PreActivationBlock(channels, outputs, stride if b == 0 else 1, norm))
                channels = outputs
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = norm2d(norm, channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1), 1))


def _wide(depth: int, widening: int) -> Builder:
    blocks = (depth - 4) // 6
    return lambda shape, classes, width, norm: WideResNet(blocks, widening, shape, classes, width, norm)


def _bias_zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.bias)


MODELS = {
    f"wrn{depth}_{widening}": ModelInfo(
        build=_wide(depth, widening),
        initialise=initialiser(conv=he_fan_out, linear=_bias_zero),
        paper="baykal2019sipp",
        about=f"wide ResNet of {depth} layers, {widening} times the channels, norm in front of the convolutions",
        parameters=parameters,
        norms=("batch", "none"),
    )
    for depth, widening, parameters in ((16, 8, 10_961_370), (28, 2, 1_467_610))
}
