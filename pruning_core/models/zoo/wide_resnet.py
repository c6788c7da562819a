"""Wide residual networks for CIFAR (Zagoruyko and Komodakis 2016): norm and ReLU in front of each convolution.

``wrn<depth>_<k>`` has (depth - 4) / 6 blocks a stage and 16 k, 32 k and 64 k channels behind a stem of 16; no dropout.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import Shape, conv2d, family, norm2d, scaled, stages
from pruning_core.models.zoo.initialisers import he_fan_out, initialiser


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
    """Stem of 16 channels, three stages of ``blocks`` blocks (the later two at stride 2), norm, average pool, classifier."""

    def __init__(self, blocks: int, widening: int, shape: Shape, classes: int, width: float, norm: str):
        super().__init__()
        stem, *channels = (scaled(n, width) for n in (16, 16 * widening, 32 * widening, 64 * widening))
        self.conv1 = conv2d(shape[0], stem, 3, 1, norm)
        parts, features = stages(partial(PreActivationBlock, norm=norm), stem, channels, [blocks] * 3)
        self.layer1, self.layer2, self.layer3 = parts
        self.bn = norm2d(norm, features)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1).flatten(1))


def _bias_zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.bias)


_START = initialiser(conv=he_fan_out, linear=_bias_zero)

MODELS = family({"wrn16_8": (partial(WideResNet, 2, 8), _START), "wrn28_2": (partial(WideResNet, 4, 2), _START)})
