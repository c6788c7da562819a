"""VGG-16 for CIFAR: 13 convolutions of 3x3 with bias and batch norm, one linear layer.

RNI, SiPP and How-Sparse use networks of the same 14,728,266 parameters that are not the same network: they
differ in the last pooling and in the initialisation. SNIP-it's (50.7 million parameters) is another one.
"""

from collections import OrderedDict

from torch import nn

from pruning_core.models.zoo.base import Builder, Chain, Shape, family
from pruning_core.models.zoo.initialisers import he_fan_out, he_start, initialiser, rni_start

Stages = tuple[tuple[int, ...], ...]
VGG16: Stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG8: Stages = ((16, 16), (32, 32), (64, 64, 64, 64))


def _vgg(stages: Stages, last_pool: str = "average") -> Builder:
    """A builder; ``last_pool`` is "average" (of what is left, 2x2 for VGG-16 on CIFAR) or "max" (one more max-pool)."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        features = Chain(shape[0], width, norm)
        for s, stage in enumerate(stages, start=1):
            for i, channels in enumerate(stage, start=1):
                features.conv(f"{s}_{i}", channels, 3, padding=1)
            if s < len(stages) or last_pool == "max":
                features[f"pool{s}"] = nn.MaxPool2d(2)
        return nn.Sequential(
            OrderedDict(
                features=nn.Sequential(features),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(features.inputs, classes),
            )
        )

    return build


MODELS = family({
    "vgg16": (_vgg(VGG16), initialiser(conv=he_fan_out)),
    "vgg16_rni": (_vgg(VGG16), rni_start),
    "vgg16_how_sparse": (_vgg(VGG16, "max"), he_start),
    "vgg8": (_vgg(VGG8), rni_start),
})  # fmt: skip
