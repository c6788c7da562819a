"""Small convolutional networks that the papers all call LeNet-5 and that share little but the name."""

from collections import OrderedDict

from torch import nn

from pruning_core.models.zoo.base import Chain, Shape, family, leaky_relu, norm2d, scaled
from pruning_core.models.zoo.initialisers import he_fan_out, initialiser, snip_start


def _lenet5(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv3 6, pool, conv3 16, pool, conv6 120, 84, classes; images are resized to 32x32, as in the paper."""
    layers = Chain(shape[0], width)
    if shape[1:] != (32, 32):
        layers["resize"] = nn.Upsample(size=(32, 32), mode="bilinear")
    for i, (channels, kernel) in enumerate(((6, 3), (16, 3), (120, 6)), start=1):
        layers.conv(i, channels, kernel)
        if i < 3:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    hidden = scaled(84, width)
    layers.update(fc1=nn.Linear(layers.inputs, hidden), act4=nn.ReLU(), fc2=nn.Linear(hidden, classes))
    return nn.Sequential(layers)


def _lenet5_snip(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 6 (padding 2), pool, conv5 16, pool, conv5 120, pool to 3x3, 84, classes; with batch norm."""
    channels = [shape[0], *(scaled(n, width) for n in (6, 16, 120))]
    units = scaled(84, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in (1, 2, 3):
        layers[f"conv{i}"] = nn.Conv2d(channels[i - 1], channels[i], 5, padding=2 if i == 1 else 0)
        layers[f"norm{i}"] = norm2d(norm, channels[i])
        layers[f"act{i}"] = leaky_relu()
        layers[f"pool{i}"] = nn.MaxPool2d(2) if i < 3 else nn.AdaptiveAvgPool2d(3)
    layers.update(flatten=nn.Flatten(), drop1=nn.Dropout(0.3), fc1=nn.Linear(9 * channels[3], units))
    if norm != "none":
        layers["norm4"] = nn.BatchNorm1d(units)  # the sigmoid norm is defined for channels of images only
    layers.update(act4=leaky_relu(), drop2=nn.Dropout(0.3), fc2=nn.Linear(units, classes))
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


MODELS = family({
    "lenet5": (_lenet5, initialiser(conv=he_fan_out)),
    "lenet5_snip": (_lenet5_snip, snip_start),
    "lenet5_caffe": (_lenet5_caffe, initialiser()),
})  # fmt: skip
