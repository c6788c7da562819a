"""VGG-16 for CIFAR: 13 convolutions of 3x3 with bias and batch norm, one linear layer.

RNI, SiPP and How-Sparse use networks of the same 14,728,266 parameters that are not the same network: they
differ in the last pooling and in the initialisation. SNIP-it's (50.7 million parameters) is another one.
"""

from collections import OrderedDict

from torch import nn

from pruning_core.models.zoo.base import (
    Builder,  # fmt: skip
    ModelInfo,  # fmt: skip
    Shape,  # fmt: skip
    he_fan_in_no_bias,  # fmt: skip
    he_fan_out,  # fmt: skip
    initialiser,  # fmt: skip
    norm2d,  # fmt: skip
    scaled,  # fmt: skip
    small_normal,  # fmt: skip
)

Stages = tuple[tuple[int, ...], ...]
VGG16: Stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG8: Stages = ((16, 16), (32, 32), (64, 64, 64, 64))


def _vgg(stages: Stages, last_pool: str) -> Builder:
    """A builder; ``last_pool`` is "average" (of what is left, 2x2 for VGG-16 on CIFAR) or "max" (one more max-pool)."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        features: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = shape[0]
        for s, stage in enumerate(stages, start=1):
            for i, channels in enumerate(stage, start=1):
                outputs = scaled(channels, width)
                features[f"conv{s}_{i}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
                if norm != "none":
                    features[f"norm{s}_{i}"] = norm2d(norm, outputs)
                features[f"act{s}_{i}"] = nn.ReLU()
                inputs = outputs
            if s < len(stages) or last_pool == "max":
                features[f"pool{s}"] = nn.MaxPool2d(2)
        return nn.Sequential(
            OrderedDict(
                features=nn.Sequential(features),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(inputs, classes),
            )
        )

    return build


MODELS = {
    "vgg16": ModelInfo(
        build=_vgg(VGG16, "average"),
        initialise=initialiser(conv=he_fan_out),
        paper="baykal2019sipp",
        about="VGG-16 with batch norm, average pool at the end, batch norm starts at scale 1",
        parameters=14_728_266,
        smallest=16,
    ),
    "vgg16_rni": ModelInfo(
        build=_vgg(VGG16, "average"),
        initialise=initialiser(conv=he_fan_out, linear=small_normal, norm_scale=0.5),
        paper="suteu2022rni",
        about="vgg16 as RNI starts it: batch norm scale 0.5, classifier from N(0, 0.01)",
        parameters=14_728_266,
        smallest=16,
    ),
    "vgg16_how_sparse": ModelInfo(
        build=_vgg(VGG16, "max"),
        initialise=initialiser(conv=he_fan_in_no_bias, linear=he_fan_in_no_bias),
        paper="zhang2024howsparse",
        about="VGG-16 with batch norm and a fifth max-pool instead of the average pool",
        parameters=14_728_266,
        smallest=32,
    ),
    "vgg8": ModelInfo(
        build=_vgg(VGG8, "average"),
        initialise=initialiser(conv=he_fan_out, linear=small_normal, norm_scale=0.5),
        paper="suteu2022rni",
        about="eight convolutions of 16 to 64 channels, started as vgg16_rni; ours, for small images in RNI's chapter",
        parameters=147_002,
        shape=(1, 8, 8),
        smallest=4,
    ),
}
