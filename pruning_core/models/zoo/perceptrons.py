"""Multilayer perceptrons on flattened images: LeNet-300-100 in two variants, LeNet-500-300-100, SNIP-it's MLP5.

Any image size; on 8x8 digits ``lenet300`` is 64-300-100-10.
"""

import math
from collections.abc import Callable, Sequence

from torch import nn

from pruning_core.models.zoo.base import Builder, Chain, Shape, family, leaky_relu
from pruning_core.models.zoo.initialisers import initialiser, snip_start


def perceptron(
    hidden: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    norms: bool = False,
    dropout: float = 0.0,
    bias: bool = True,
) -> Builder:
    """A builder of ``fc1, norm1, act1, drop1, fc2, ...``; without ``norms`` its argument ``norm`` has no effect."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        layers = Chain(math.prod(shape), width, norm if norms else "none", activation)
        layers["flatten"] = nn.Flatten()
        for i, units in enumerate(hidden, start=1):
            layers.linear(i, units, bias)
            if dropout:
                layers[f"drop{i}"] = nn.Dropout(dropout)
        layers[f"fc{len(hidden) + 1}"] = nn.Linear(layers.inputs, classes, bias)
        return nn.Sequential(layers)

    return build


MODELS = family({
    "lenet300": (perceptron([300, 100]), initialiser()),
    "lenet500": (perceptron([500, 300, 100]), initialiser()),
    "fc_nettrim": (perceptron([300, 1_000, 100]), initialiser()),
    "lenet300_snip": (perceptron([300, 100], leaky_relu, norms=True), snip_start),
    "ffn2_ispasp": (perceptron([512], bias=False), initialiser()),
    "ffn3_ispasp": (perceptron([512, 512], bias=False), initialiser()),
    "mlp5_snip": (perceptron([512] * 4, leaky_relu, norms=True, dropout=0.3), snip_start),
    "mlp5_snip_nodrop": (perceptron([512] * 4, leaky_relu, norms=True), snip_start),
})  # fmt: skip
