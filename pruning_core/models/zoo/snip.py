"""The convolutional networks of SNIP-it: leaky ReLUs, orthogonal weights, batch norm, and heads with dropout.

Each layer of the heads has dropout in front of it. As the heads are wide in the paper and become narrow by pruning, each
network also exists without dropout (``..._nodrop``).
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import Builder, Chain, Shape, conv2d, family, leaky_relu, norm2d, scaled, stages
from pruning_core.models.zoo.initialisers import snip_start

DROPOUT = 0.3
Layer = int | tuple[int, int] | str
"""A 3x3 convolution (its channels), one of another size (channels, kernel), or "M" (max-pool 2), "P" (max-pool 3/2)."""
CONV6: tuple[Layer, ...] = (64, 64, "M", 128, 128, "M", 256, 256)
ALEXNET: tuple[Layer, ...] = ((64, 5), "P", (192, 5), "P", 384, 256, 512)
VGG16: tuple[Layer, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 1024)


def _head(inputs: int, hidden: Sequence[int], classes: int, width: float, norm: str, dropout: float) -> nn.Sequential:
    """``drop1, fc1, norm1, act1, drop2, ...``: linear layers with dropout in front."""
    layers = Chain(inputs, width, norm, leaky_relu)
    for i in range(1, len(hidden) + 2):
        if dropout:
            layers[f"drop{i}"] = nn.Dropout(dropout)
        if i <= len(hidden):
            layers.linear(i, hidden[i - 1])
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(layers.inputs, classes)
    return nn.Sequential(layers)


def _convolutional(steps: Sequence[Layer], side: int, hidden: Sequence[int], dropout: float) -> Builder:
    """Convolutions with norm and leaky ReLU, an average pool to ``side`` x ``side``, a head."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        features, i = Chain(shape[0], width, norm, leaky_relu), 0
        for position, step in enumerate(steps):
            if isinstance(step, str):
                features[f"pool{position}"] = nn.MaxPool2d(2) if step == "M" else nn.MaxPool2d(3, 2)
                continue
            i += 1
            channels, kernel = step if isinstance(step, tuple) else (step, 3)
            features.conv(i, channels, kernel, padding=kernel // 2)
        head = _head(side * side * features.inputs, hidden, classes, width, norm, dropout)
        convolutions, pool = nn.Sequential(features), nn.AdaptiveAvgPool2d(side)
        return nn.Sequential(OrderedDict(features=convolutions, pool=pool, flatten=nn.Flatten(), head=head))

    return build


def _conv_only(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """No linear layer at all: the last convolution has one channel a class."""
    features = Chain(shape[0], width, norm, leaky_relu)
    for i, (channels, kernel) in enumerate(((64, 5), (128, 3), (64, 3), (32, 3)), start=1):
        features.conv(i, channels, kernel, padding=1)
        features[f"pool{i}"] = nn.MaxPool2d(2 if i < 4 else 3)
    features["conv5"] = nn.Conv2d(features.inputs, classes, 3, padding=1)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), pool=pool, flatten=nn.Flatten()))


def _logistic(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(shape[0] * shape[1] * shape[2], classes)))


class Block(nn.Module):
    """Two 3x3 convolutions with bias and a shortcut: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    is_block = True

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str):
        super().__init__()
        self.outputs = outputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.bn1 = norm2d(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn2 = norm2d(norm, outputs)
        self.act = leaky_relu()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = conv2d(inputs, outputs, 1, stride, norm)
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, bn=norm2d(norm, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class SnipResNet(nn.Module):
    """ImageNet's stem, four stages of blocks (the later three at stride 2), average pool to 2x2, a head of two layers."""

    def __init__(self, blocks: Sequence[int], dropout: float, shape: Shape, classes: int, width: float, norm: str):
        super().__init__()
        channels = [scaled(n, width) for n in (64, 128, 256, 512)]
        self.conv1, self.bn1 = conv2d(shape[0], channels[0], 7, 2, norm), norm2d(norm, channels[0])
        self.act, self.pool = leaky_relu(), nn.MaxPool2d(3, 2, 1)
        parts, features = stages(partial(Block, norm=norm), channels[0], channels, blocks)
        self.layer1, self.layer2, self.layer3, self.layer4 = parts
        self.head = _head(4 * features, (256,), classes, width, norm, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


def _with_dropout(dropout: float) -> dict[str, Builder]:
    return {
        "conv6_snip": _convolutional(CONV6, 3, (256, 256), dropout),
        "alexnet_snip": _convolutional(ALEXNET, 2, (4096, 4096), dropout),
        "vgg16_snip": _convolutional(VGG16, 2, (4096, 4096), dropout),
        "resnet18_snip": partial(SnipResNet, (2, 2, 2, 2), dropout),
        "resnet34_snip": partial(SnipResNet, (3, 4, 6, 3), dropout),
    }


_BUILDERS = {
    **_with_dropout(DROPOUT),
    **{f"{name}_nodrop": builder for name, builder in _with_dropout(0.0).items()},
    "conv_only_snip": _conv_only,
    "logistic": _logistic,
}
MODELS = family({name: (builder, snip_start) for name, builder in _BUILDERS.items()})
