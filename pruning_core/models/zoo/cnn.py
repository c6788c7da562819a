"""Two plain convolutional networks of the comparisons around PFP and SiPP: CNN5 of "Deep Double Descent", CNN60K of Net-Trim.

CNN60K keeps the name it has in the official code; it has 2.4 million parameters.
"""

from torch import nn

from pruning_core.models.zoo.base import Chain, Shape, family
from pruning_core.models.zoo.initialisers import he_fan_out, initialiser


def _cnn5(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv3 with norm and ReLU to 64, 128, 256, 512 channels, pools 1, 2, 2 and all that is left, 1x1 to the classes."""
    layers = Chain(shape[0], width, norm)
    for i, channels in enumerate((64, 128, 256, 512), start=1):
        layers.conv(i, channels, 3, padding=1, bias=norm == "none")
        if i in (2, 3):
            layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["pool4"] = nn.AdaptiveMaxPool2d(1)  # the paper's pool of 8 on 32x32 images
    layers["conv5"] = nn.Conv2d(layers.inputs, classes, 1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _cnn60k(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 32, conv5 32, pool, a convolution over all that is left (12x12 of 32x32) to 512, classes; nothing padded."""
    height, side = ((size - 8) // 2 for size in shape[1:])
    layers = Chain(shape[0], width)
    layers.conv(1, 32, 5)
    layers.conv(2, 32, 5)
    layers["pool2"] = nn.MaxPool2d(2)
    layers.conv(3, 512, (height, side))
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(layers.inputs, classes)
    return nn.Sequential(layers)


_START = initialiser(conv=he_fan_out)

MODELS = family({"cnn5": (_cnn5, _START), "cnn60k": (_cnn60k, _START)})
