"""Small convolutional networks that the papers all call LeNet-5 and that share little but the name."""

from collections import OrderedDict

from torch import nn

from pruning_core.models.zoo.base import (
    LEAK,  # fmt: skip
    ModelInfo,  # fmt: skip
    Shape,  # fmt: skip
    he_fan_out,  # fmt: skip
    initialiser,  # fmt: skip
    norm2d,  # fmt: skip
    scaled,  # fmt: skip
    snip_initialiser,  # fmt: skip
)


def _lenet5(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv3 6, pool, conv3 16, pool, conv6 120, 84, classes; images are resized to 32x32, as in the paper."""
    c1, c2, c3, units = (scaled(n, width) for n in (6, 16, 120, 84))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if shape[1:] != (32, 32):
        layers["resize"] = nn.Upsample(size=(32, 32), mode="bilinear")
    layers.update(
        conv1=nn.Conv2d(shape[0], c1, 3), act1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(c1, c2, 3), act2=nn.ReLU(), pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(c2, c3, 6), act3=nn.ReLU(), flatten=nn.Flatten(),
        fc1=nn.Linear(c3, units), act4=nn.ReLU(), fc2=nn.Linear(units, classes),
    )  # fmt: skip
    return nn.Sequential(layers)


def _lenet5_snip(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 6 (padding 2), pool, conv5 16, pool, conv5 120, pool to 3x3, 84, classes; with batch norm."""
    channels = [shape[0], *(scaled(n, width) for n in (6, 16, 120))]
    units = scaled(84, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in (1, 2, 3):
        layers[f"conv{i}"] = nn.Conv2d(channels[i - 1], channels[i], 5, padding=2 if i == 1 else 0)
        layers[f"norm{i}"] = norm2d(norm, channels[i])
        layers[f"act{i}"] = nn.LeakyReLU(LEAK)
        if i < 3:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers.update(pool3=nn.AdaptiveAvgPool2d(3), flatten=nn.Flatten())
    layers.update(drop1=nn.Dropout(0.3), fc1=nn.Linear(9 * channels[3], units))
    if norm != "none":
        layers["norm4"] = nn.BatchNorm1d(units)  # the sigmoid norm is defined for channels of images only
    layers.update(act4=nn.LeakyReLU(LEAK), drop2=nn.Dropout(0.3), fc2=nn.Linear(units, classes))
    return nn.Sequential(layers)


def _lenet5_caffe(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 20, pool, conv5 50, pool, 500, classes."""
    c1, c2, units = (scaled(n, width) for n in (20, 50, 500))
    height, side = (((size - 4) // 2 - 4) // 2 for size in shape[1:])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(shape[0], c1, 5), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(c1, c2, 5), pool2=nn.MaxPool2d(2), flatten=nn.Flatten(),
        fc1=nn.Linear(c2 * height * side, units), act1=nn.ReLU(), fc2=nn.Linear(units, classes),
    )  # fmt: skip
    return nn.Sequential(layers)


MODELS = {
    "lenet5": ModelInfo(
        build=_lenet5,
        initialise=initialiser(conv=he_fan_out),
        paper="baykal2019sipp",
        about="6-16-120 convolutions without norm layers, 32x32 (81,302 parameters with 3 input channels)",
        parameters=81_194,
        shape=(1, 32, 32),
        norms=("batch", "none"),
    ),
    "lenet5_snip": ModelInfo(
        build=_lenet5_snip,
        initialise=snip_initialiser,
        paper="verdenius2020snipit",
        about="6-16-120 convolutions with batch norm, leaky ReLU, dropout 0.3",
        parameters=142_798,
        shape=(1, 28, 28),
        smallest=28,
    ),
    "lenet5_caffe": ModelInfo(
        build=_lenet5_caffe,
        initialise=initialiser(),
        paper="lecun1998gradient",
        about="20-50 convolutions and 500 units, as distributed with Caffe",
        parameters=431_080,
        shape=(1, 28, 28),
        norms=("batch", "none"),
        smallest=16,
    ),
}
