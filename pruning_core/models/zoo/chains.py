"""Networks that are chains: each layer, as ``networks.yml`` lists it, is fed by the one before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from pruning_core.models.zoo.base import LEAK, Shape, norm2d, scaled

CLASSES = "classes"  # in place of a number of channels or units: the layer that gives the logits


class Chain:
    """Makes the layers of a chain, each for what the one before it returns: ``shape`` (C, H, W), flattened (features,).

    ``width`` scales every layer but the classifier. ``activation`` is "relu" or "leaky" (SNIP-it's); ``bias`` says which
    layers have one: "always", "never", or "without_norm" (those that no norm layer follows); without ``dropout`` there
    are no such layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        width: float,
        norm: str,
        activation: str = "relu",
        bias: str = "always",
        dropout: bool = True,
    ):
        self.shape, self.classes, self.width, self.norm_kind = shape, classes, width, norm
        self.activation, self.bias, self.dropout = activation, bias, dropout

    def of(self, layers: Mapping[str, Any]) -> nn.Sequential:
        """The layers {name: size or sizes}; the name without its number is that of the method which makes the layer."""
        chain = nn.Sequential()
        for name, size in layers.items():
            if isinstance(size, Mapping):
                chain.add_module(name, self.of(size))
                continue
            make = getattr(self, name.rstrip("_0123456789").removeprefix("fc_"))
            sizes = size if isinstance(size, list) else [] if size is None else [size]
            if (layer := make(*sizes)) is not None:
                chain.add_module(name, layer)
        return chain

    def _outputs(self, size: int | str) -> tuple[int, bool]:
        """Number of outputs of a layer, and whether it has a bias."""
        last = size == CLASSES
        biased = {"always": True, "never": False, "without_norm": last or self.norm_kind == "none"}[self.bias]
        return self.classes if last else scaled(int(size), self.width), biased

    def conv(self, channels: int | str, kernel: int | str = 3, padding: int = 1, stride: int = 1) -> nn.Module:
        """A convolution to ``channels`` times the width; the kernel "all" covers all that is left."""
        inputs, *sides = self.shape
        outputs, bias = self._outputs(channels)
        size: Any = tuple(sides) if kernel == "all" else (kernel, kernel)
        left = ((side + 2 * padding - own) // stride + 1 for side, own in zip(sides, size, strict=True))
        self.shape = (outputs, *left)
        return nn.Conv2d(inputs, outputs, size, stride, padding, bias=bias)

    def fc(self, units: int | str) -> nn.Module:
        """A linear layer to ``units`` times the width."""
        (inputs,) = self.shape
        outputs, bias = self._outputs(units)
        self.shape = (outputs,)
        return nn.Linear(inputs, outputs, bias)

    linear = fc

    def norm(self) -> nn.Module | None:
        if self.norm_kind == "none":
            return None
        # The sigmoid norm is for channels of images only.
        return nn.BatchNorm1d(*self.shape) if len(self.shape) == 1 else norm2d(self.norm_kind, self.shape[0])

    def act(self) -> nn.Module:
        return nn.LeakyReLU(LEAK) if self.activation == "leaky" else nn.ReLU()

    def pool(self, kernel: int | str, stride: int | None = None) -> nn.Module:
        """A max-pool; with "mean" or "max" in place of the kernel, a pool of all that is left to ``stride`` x ``stride``."""
        channels, *sides = self.shape
        if isinstance(kernel, str):
            assert stride is not None
            self.shape = (channels, stride, stride)
            return nn.AdaptiveAvgPool2d(stride) if kernel == "mean" else nn.AdaptiveMaxPool2d(stride)
        self.shape = (channels, *((side - kernel) // (stride or kernel) + 1 for side in sides))
        return nn.MaxPool2d(kernel, stride)

    def resize(self, side: int, mode: str) -> nn.Module | None:
        """Images of another size brought to ``side`` x ``side``."""
        channels, *sides = self.shape
        self.shape = (channels, side, side)
        return None if sides == [side, side] else nn.Upsample(size=(side, side), mode=mode)

    def drop(self, probability: float) -> nn.Module | None:
        return nn.Dropout(probability) if self.dropout else None

    def flatten(self) -> nn.Module:
        self.shape = (math.prod(self.shape),)
        return nn.Flatten()


def chain(
    shape: Shape, classes: int, width: float, norm: str, *, layers: Mapping[str, Any], **options: Any
) -> nn.Sequential:
    """The network (N, C, H, W) -> (N, classes) of these layers; ``options`` are those of :class:`Chain`."""
    return Chain(shape, classes, width, norm, **options).of(layers)
