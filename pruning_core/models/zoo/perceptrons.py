"""Multilayer perceptrons on flattened images: LeNet-300-100 in two variants, LeNet-500-300-100, SNIP-it's MLP5.

Any image size; on 8x8 digits ``lenet300`` is 64-300-100-10.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from pruning_core.models.zoo.base import LEAK, Builder, ModelInfo, Shape, initialiser, scaled, snip_initialiser


def perceptron(hidden: Sequence[int], activation: str, dropout: float = 0.0, bias: bool = True) -> Builder:
    """A builder of ``fc1, norm1, act1, drop1, fc2, ...``; norm layers where ``norm`` is "batch"."""

    def build(shape: Shape, classes: int, width: float, norm: str) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = shape[0] * shape[1] * shape[2]
        for i, units in enumerate(hidden, start=1):
            outputs = scaled(units, width)
            layers[f"fc{i}"] = nn.Linear(inputs, outputs, bias)
            if norm == "batch":
                layers[f"norm{i}"] = nn.BatchNorm1d(outputs)
            layers[f"act{i}"] = nn.ReLU() if activation == "relu" else nn.LeakyReLU(LEAK)
            if dropout:
                layers[f"drop{i}"] = nn.Dropout(dropout)
            inputs = outputs
        layers[f"fc{len(hidden) + 1}"] = nn.Linear(inputs, classes, bias)
        return nn.Sequential(layers)

    return build


def _plain(hidden: Sequence[int], bias: bool = True) -> Builder:
    """A perceptron that has no norm layers in the paper: ``norm`` is without effect."""
    build = perceptron(hidden, "relu", bias=bias)
    return lambda shape, classes, width, norm: build(shape, classes, width, "none")


_MLP5: dict[str, Any] = {
    "initialise": snip_initialiser,
    "paper": "verdenius2020snipit",
    "parameters": 1_199_114,
    "shape": (1, 28, 28),
    "norms": ("batch", "none"),
}

MODELS = {
    "lenet300": ModelInfo(
        build=_plain([300, 100]),
        initialise=initialiser(),
        paper="baykal2019sipp",
        about="LeNet-300-100, ReLU, no norm layers",
        parameters=266_610,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
    "lenet500": ModelInfo(
        build=_plain([500, 300, 100]),
        initialise=initialiser(),
        paper="baykal2019sipp",
        about="LeNet-500-300-100, ReLU, no norm layers",
        parameters=573_910,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
    "fc_nettrim": ModelInfo(
        build=_plain([300, 1_000, 100]),
        initialise=initialiser(),
        paper="baykal2019sipp",
        about="784-300-1000-100-10, ReLU, no norm layers: the perceptron of the comparison with Net-Trim",
        parameters=637_610,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
    "lenet300_snip": ModelInfo(
        build=perceptron([300, 100], "leaky"),
        initialise=snip_initialiser,
        paper="verdenius2020snipit",
        about="LeNet-300-100 with batch norm and leaky ReLU",
        parameters=267_410,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
    "ffn2_ispasp": ModelInfo(
        build=_plain([512], bias=False),
        initialise=initialiser(),
        paper="wolfe2022ispasp",
        about="two layers, 512 hidden units, ReLU, no bias: the network of i-SpaSP's theory",
        parameters=406_528,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
    "ffn3_ispasp": ModelInfo(
        build=_plain([512, 512], bias=False),
        initialise=initialiser(),
        paper="wolfe2022ispasp",
        about="three layers, twice 512 hidden units, ReLU, no bias",
        parameters=668_672,
        shape=(1, 28, 28),
        norms=("batch", "none"),
    ),
    "mlp5_snip": ModelInfo(
        build=perceptron([512] * 4, "leaky", dropout=0.3),
        about="four hidden layers of 512 with batch norm, leaky ReLU and dropout 0.3",
        **_MLP5,
    ),
    "mlp5_snip_nodrop": ModelInfo(build=perceptron([512] * 4, "leaky"), about="mlp5_snip without dropout", **_MLP5),
}
