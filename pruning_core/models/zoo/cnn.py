"""Two plain convolutional networks of the comparisons around PFP and SiPP: CNN5 of "Deep Double Descent", CNN60K of Net-Trim.

CNN60K keeps the name it has in the official code; it has 2.4 million parameters.
"""

from collections import OrderedDict

from torch import nn

from pruning_core.models.zoo.base import ModelInfo, Shape, he_fan_out, initialiser, norm2d, scaled


def _cnn5(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv3 with norm and ReLU to 64, 128, 256, 512 channels, pools 1, 2, 2 and all that is left, 1x1 to the classes."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = shape[0]
    for i, channels in enumerate((64, 128, 256, 512), start=1):
        outputs = scaled(channels, width)
        layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm == "none")
        if norm != "none":
            layers[f"norm{i}"] = norm2d(norm, outputs)
        layers[f"act{i}"] = nn.ReLU()
        if i in (2, 3):
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        inputs = outputs
    layers["pool4"] = nn.AdaptiveMaxPool2d(1)  # the paper's pool of 8 on 32x32 images
    layers["conv5"] = nn.Conv2d(inputs, classes, 1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def _cnn60k(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
    """conv5 32, conv5 32, pool, a convolution over all that is left (12x12 of 32x32) to 512, classes; nothing padded."""
    c1, c2, units = (scaled(n, width) for n in (32, 32, 512))
    height, side = ((size - 8) // 2 for size in shape[1:])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(shape[0], c1, 5), act1=nn.ReLU(),
        conv2=nn.Conv2d(c1, c2, 5), act2=nn.ReLU(), pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(c2, units, (height, side)), act3=nn.ReLU(), flatten=nn.Flatten(),
        fc1=nn.Linear(units, classes),
    )  # fmt: skip
    return nn.Sequential(layers)


MODELS = {
    "cnn5": ModelInfo(
        build=_cnn5,
        initialise=initialiser(conv=he_fan_out),
        paper="liebenwein2020pfp",
        about="four 3x3 convolutions with batch norm, 64 to 512 channels, and a 1x1 convolution as classifier",
        parameters=1_557_066,
        smallest=4,
    ),
    "cnn60k": ModelInfo(
        build=_cnn60k,
        initialise=initialiser(conv=he_fan_out),
        paper="baykal2019sipp",
        about="two unpadded 5x5 convolutions of 32 and one over the whole map to 512, without norm layers",
        parameters=2_393_002,
        norms=("batch", "none"),
        smallest=10,
    ),
}
