"""The networks of How Sparse Can We Prune (Zhang et al. 2024); its VGG-16 stands with the others of that family.

All start as in the official code: weights of convolutions and linear layers normal with variance 2 / inputs, biases 0,
batch norm at scale 1 and shift 0. The perceptrons and AlexNet (which resizes its images to 224x224) take images of any size.
The official LeNet and CNet fit 32x32 images only; here the first linear layer has the size that other images need.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from pruning_core.models.zoo.base import Builder, ModelInfo, Shape, he_fan_in_no_bias, initialiser, norm2d, scaled
from pruning_core.models.zoo.blocks import BlockNet
from pruning_core.models.zoo.perceptrons import _plain
from pruning_core.models.zoo.resnet import BasicBlock, Bottleneck, _conv

ALEXNET_SIDE = 224


def _head(inputs: int, hidden: Sequence[int], classes: int) -> OrderedDict[str, nn.Module]:
    """Flatten and linear layers ``fc1, ...`` with ReLU between them, onto the classes."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, units in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(inputs, units)
        layers[f"fc_act{i}"] = nn.ReLU()
        inputs = units
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(inputs, classes)
    return layers


def _lenet(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 16, pool, conv5 32, pool, 120, 84, classes; nothing padded."""
    c1, c2, *units = (scaled(n, width) for n in (16, 32, 120, 84))
    height, side = (((size - 4) // 2 - 4) // 2 for size in shape[1:])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(shape[0], c1, 5), act1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(c1, c2, 5), act2=nn.ReLU(), pool2=nn.MaxPool2d(2),
    )  # fmt: skip
    return nn.Sequential(layers | _head(c2 * height * side, units, classes))


def _cnet(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 64, 64, 32, 16 with bias, norm and ReLU, nothing padded; one pool, 120, 84, classes."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = shape[0]
    for i, channels in enumerate((64, 64, 32, 16), start=1):
        outputs = scaled(channels, width)
        layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, 5)
        if norm != "none":
            layers[f"norm{i}"] = norm2d(norm, outputs)
        layers[f"act{i}"] = nn.ReLU()
        inputs = outputs
    layers["pool"] = nn.MaxPool2d(2)
    height, side = ((size - 16) // 2 for size in shape[1:])
    return nn.Sequential(layers | _head(inputs * height * side, [scaled(n, width) for n in (120, 84)], classes))


def _alexnet(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """Images enlarged to 224x224, five convolutions, three overlapping pools, 4096, 4096, classes; no dropout, no norm."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if shape[1:] != (ALEXNET_SIDE, ALEXNET_SIDE):
        layers["resize"] = nn.Upsample(
            size=(ALEXNET_SIDE, ALEXNET_SIDE), mode="nearest"
        )  # 32x32: every pixel 7x7 times
    convolutions = ((96, 11, 4, 1), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
    inputs = shape[0]
    for i, (channels, kernel, stride, padding) in enumerate(convolutions, start=1):
        outputs = scaled(channels, width)
        layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        layers[f"act{i}"] = nn.ReLU()
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(3, 2)
        inputs = outputs
    units = scaled(4096, width)
    return nn.Sequential(layers | _head(inputs * 5 * 5, [units, units], classes))


def _resnet(blocks: Sequence[int], block: Callable[..., BasicBlock | Bottleneck]) -> Builder:
    """A 3x3 stem of 64 channels at full resolution, then stages of 64, 128, 256, 512; the later three start at stride 2."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        inputs = scaled(64, width)
        stem = _conv(shape[0], inputs, 3, 1, norm), norm2d(norm, inputs)
        parts: list[nn.Module] = []
        for stage, (channels, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True)):
            for i in range(count):
                part = block(inputs, scaled(channels, width), 2 if stage and i == 0 else 1, "B", norm)
                parts.append(part)
                inputs = part.outputs
        return BlockNet(*stem, parts, inputs, classes)

    return build


def _info(build: Builder, about: str, parameters: int, **options) -> ModelInfo:
    start = initialiser(conv=he_fan_in_no_bias, linear=he_fan_in_no_bias)
    return ModelInfo(build, start, "zhang2024howsparse", about, parameters, **options)


_FC12 = (1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100)
_FC13 = (*_FC12[:-2], 250, *_FC12[-2:])
# These have no norm layers in the paper: "batch" is without effect.
_WITHOUT_NORM = ("batch", "none")

MODELS = {
    name: _info(_plain(hidden), about, parameters, norms=_WITHOUT_NORM)
    for name, hidden, about, parameters in (
        ("fc2", (100,), "a perceptron of two layers, 100 hidden units", 308_310),
        ("fc5", (1000, 600, 300, 100), "a perceptron of five layers, called FC in the code", 3_885_010),
        ("fc12", _FC12, "a perceptron of twelve layers, 1000 to 100 hidden units", 7_269_610),
        ("fc13", _FC13, "fc12 with a layer of 250 units before the last two hidden ones", 7_339_860),
    )
} | {
    "lenet_how_sparse": _info(
        _lenet,
        "16-32 convolutions with ReLU and unpadded, 120 and 84 units; the official one takes 32x32 only",
        120_382,
        shape=(1, 32, 32),
        norms=_WITHOUT_NORM,
        smallest=16,
    ),
    "cnet": _info(
        _cnet,
        "four unpadded 5x5 convolutions with batch norm, 120 and 84 units; the official one takes 32x32 only",
        302_542,
        shape=(1, 32, 32),
        smallest=18,
    ),
    "alexnet_how_sparse": _info(
        _alexnet,
        "AlexNet on images enlarged to 224x224, two layers of 4096 units, no dropout",
        46_787_978,
        norms=_WITHOUT_NORM,
    ),
    "resnet18_how_sparse": _info(
        _resnet((2, 2, 2, 2), BasicBlock),
        "ResNet-18 with a 3x3 stem and no first pool, for images of 32x32 and 64x64",
        11_220_132,
        classes=100,
    ),
    "resnet50_how_sparse": _info(
        _resnet((3, 4, 6, 3), Bottleneck),
        "ResNet-50 with a 3x3 stem and no first pool, for images of 32x32 and 64x64; stride on the 3x3 convolutions",
        23_705_252,
        classes=100,
    ),
}
