"""The convolutional networks of SNIP-it: leaky ReLUs, orthogonal weights, batch norm, and heads with dropout.

Each layer of the heads has dropout in front of it. As the heads are wide in the paper and become narrow by pruning, each
network also exists without dropout (``..._nodrop``).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.zoo.base import LEAK, Builder, ModelInfo, Shape, norm2d, scaled, snip_initialiser

DROPOUT = 0.3
Step = int | tuple[int, int] | str
"""A 3x3 convolution (its channels), one of another size (channels, kernel), or "M" (max-pool 2), "P" (max-pool 3/2)."""


def _head(inputs: int, hidden: Sequence[int], classes: int, width: float, norm: str, dropout: float):
    """``drop1, fc1, norm1, act1, drop2, ...``: linear layers with dropout in front."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, units in enumerate([*hidden, None], start=1):
        if dropout:
            layers[f"drop{i}"] = nn.Dropout(dropout)
        outputs = classes if units is None else scaled(units, width)
        layers[f"fc{i}"] = nn.Linear(inputs, outputs)
        if units is not None:
            if norm != "none":
                layers[f"norm{i}"] = nn.BatchNorm1d(outputs)  # the sigmoid norm is for channels of images only
            layers[f"act{i}"] = nn.LeakyReLU(LEAK)
        inputs = outputs
    return nn.Sequential(layers)


def _convolutional(steps: Sequence[Step], side: int, hidden: Sequence[int], dropout: float) -> Builder:
    """Convolutions with norm and leaky ReLU, an average pool to ``side`` x ``side``, a head."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        features: OrderedDict[str, nn.Module] = OrderedDict()
        inputs, i = shape[0], 0
        for position, step in enumerate(steps):
            if isinstance(step, str):
                features[f"pool{position}"] = nn.MaxPool2d(2) if step == "M" else nn.MaxPool2d(3, 2)
                continue
            channels, kernel = step if isinstance(step, tuple) else (step, 3)
            i, outputs = i + 1, scaled(channels, width)
            features[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
            if norm != "none":
                features[f"norm{i}"] = norm2d(norm, outputs)
            features[f"act{i}"] = nn.LeakyReLU(LEAK)
            inputs = outputs
        return nn.Sequential(
            OrderedDict(
                features=nn.Sequential(features),
                pool=nn.AdaptiveAvgPool2d(side),
                flatten=nn.Flatten(),
                head=_head(side * side * inputs, hidden, classes, width, norm, dropout),
            )
        )

    return build


def _conv_only(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """No linear layer at all: the last convolution has one channel a class."""
    features: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = shape[0]
    for i, (channels, kernel) in enumerate(((64, 5), (128, 3), (64, 3), (32, 3)), start=1):
        outputs = scaled(channels, width)
        features[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel, padding=1)
        if norm != "none":
            features[f"norm{i}"] = norm2d(norm, outputs)
        features[f"act{i}"] = nn.LeakyReLU(LEAK)
        features[f"pool{i}"] = nn.MaxPool2d(2 if i < 4 else 3)
        inputs = outputs
    features["conv5"] = nn.Conv2d(inputs, classes, 3, padding=1)
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(features), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    )


def _logistic(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(shape[0] * shape[1] * shape[2], classes)))


class Block(nn.Module):
    """Two 3x3 convolutions with bias and a shortcut: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    is_block = True

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.bn1 = norm2d(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn2 = norm2d(norm, outputs)
        self.act = nn.LeakyReLU(LEAK)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=norm == "none")
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, bn=norm2d(norm, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(hidden)) + self.shortcut(x))


class SnipResNet(nn.Module):
    """ImageNet's stem, four stages of blocks (the later three at stride 2), average pool to 2x2, a head of two layers."""

    def __init__(self, blocks: Sequence[int], shape: Shape, classes: int, width: float, norm: str, dropout: float):
        super().__init__()
        inputs = scaled(64, width)
        self.conv1 = nn.Conv2d(shape[0], inputs, 7, 2, 3, bias=norm == "none")
        self.bn1 = norm2d(norm, inputs)
        self.act = nn.LeakyReLU(LEAK)
        self.pool = nn.MaxPool2d(3, 2, 1)
        stages = []
        for s, count in enumerate(blocks):
            stage = nn.Sequential()
            for b in range(count):
                outputs = scaled(64 * 2**s, width)
                stage.append(Block(inputs, outputs, 2 if b == 0 and s > 0 else 1, norm))
                inputs = outputs
            stages.append(stage)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.head = _head(4 * inputs, (256,), classes, width, norm, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 2), 1))


def _resnet(blocks: Sequence[int], dropout: float) -> Builder:
    return lambda shape, classes, width, norm: SnipResNet(blocks, shape, classes, width, norm, dropout)


CONV6: tuple[Step, ...] = (64, 64, "M", 128, 128, "M", 256, 256)
ALEXNET: tuple[Step, ...] = ((64, 5), "P", (192, 5), "P", 384, 256, 512)
VGG16: tuple[Step, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 1024)

_BOTH: dict[str, tuple[Any, dict[str, Any]]] = {
    "conv6_snip": (
        lambda dropout: _convolutional(CONV6, 3, (256, 256), dropout),
        {"about": "six convolutions, 64 to 256 channels, three linear layers", "parameters": 1_806_666, "smallest": 4},
    ),
    "alexnet_snip": (
        lambda dropout: _convolutional(ALEXNET, 2, (4096, 4096), dropout),
        {"about": "AlexNet for small images, with batch norm", "parameters": 28_275_530, "smallest": 7},
    ),
    "vgg16_snip": (
        lambda dropout: _convolutional(VGG16, 2, (4096, 4096), dropout),
        {
            "about": "VGG-16 with 1024 channels at the end, three linear layers of 4096, leaky ReLU",
            "parameters": 50_703_946,
            "smallest": 16,
        },
    ),
    "resnet18_snip": (
        lambda dropout: _resnet((2, 2, 2, 2), dropout),
        {"about": "ResNet-18 with ImageNet's stem, biases and a hidden linear layer", "parameters": 11_707_978},
    ),
    "resnet34_snip": (
        lambda dropout: _resnet((3, 4, 6, 3), dropout),
        {"about": "ResNet-34 with ImageNet's stem, biases and a hidden linear layer", "parameters": 21_819_850},
    ),
}


def _info(build: Builder, about: str, parameters: int, **options: Any) -> ModelInfo:
    return ModelInfo(
        build=build,
        initialise=snip_initialiser,
        paper="verdenius2020snipit",
        about=about,
        parameters=parameters,
        **options,
    )


MODELS = {
    **{name: _info(make(DROPOUT), **about) for name, (make, about) in _BOTH.items()},
    **{
        f"{name}_nodrop": _info(make(0.0), **about | {"about": f"{name} without dropout"})
        for name, (make, about) in _BOTH.items()
    },
    "conv_only_snip": _info(
        _conv_only, "five convolutions and no linear layer, for images of 28x28 and more", 174_442, smallest=26
    ),
    "logistic": _info(
        _logistic,
        "logistic regression: one linear layer",
        7_850,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
}
