"""What the model families share: their table, scaled widths, layers by name, stages of blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from pruning_core.models.layers.norms import SigmoidBatchNorm2d

Shape = tuple[int, int, int]
Builder = Callable[[Shape, int, float, str], nn.Module]
"""(shape of one image (C, H, W), classes, width factor, norm) -> network."""
Initialiser = Callable[[nn.Module], None]
LEAK = 0.05  # slope of SNIP-it's leaky ReLU

NETWORKS: dict[str, dict[str, Any]] = yaml.load(
    Path(__file__).with_name("networks.yml").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
)


@dataclass(frozen=True)
class ModelInfo:
    """One variant of the literature: how it is built, and what ``networks.yml`` says about it."""

    build: Builder
    initialise: Initialiser
    paper: str  # who published this variant (citation keys of the book)
    about: str
    parameters: int  # at `shape` and `classes`, width 1, the variant's own norm
    shape: Shape = (3, 32, 32)
    classes: int = 10
    norms: tuple[str, ...] = ("batch", "sigmoid", "none")
    smallest: int = 1  # height and width of the smallest image that passes all layers


def family(variants: Mapping[str, tuple[Builder, Initialiser]]) -> dict[str, ModelInfo]:
    """The table ``MODELS`` of a family: each variant's builder and initialiser with its entry of ``networks.yml``."""
    found = {}
    for name, (build, initialise) in variants.items():
        entry: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in NETWORKS[name].items()}
        found[name] = ModelInfo(build, initialise, **entry)
    return found


def scaled(channels: int, width: float) -> int:
    """``channels`` times the width factor, rounded, at least 1."""
    return max(1, round(channels * width))


def conv2d(inputs: int, outputs: int, kernel: int, stride: int, norm: str) -> nn.Conv2d:
    """A convolution padded by half its kernel; with a bias only where no norm layer follows, whose shift would be one."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=norm == "none")


def norm2d(norm: str, channels: int) -> nn.Module:
    """The layer behind a convolution: batch norm, RNI's sigmoid batch norm, or nothing."""
    if norm == "none":
        return nn.Identity()
    if norm == "sigmoid":
        return SigmoidBatchNorm2d(channels)
    return nn.BatchNorm2d(channels)


class Chain(OrderedDict[str, nn.Module]):
    """Layers by name, each fed by the one before: ``conv1, norm1, act1, ..., fc1, ...``, for ``nn.Sequential``.

    ``inputs`` is the number of channels, or of features, that the next layer is given.
    """

    def __init__(
        self, inputs: int, width: float, norm: str = "none", activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.inputs, self.width, self.norm, self.activation = inputs, width, norm, activation

    def conv(
        self,
        name: str | int,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        """A convolution to ``channels`` times the width, its norm layer if there is one, an activation."""
        outputs = scaled(channels, self.width)
        self[f"conv{name}"] = nn.Conv2d(self.inputs, outputs, kernel, stride, padding, bias=bias)
        if self.norm != "none":
            self[f"norm{name}"] = norm2d(self.norm, outputs)
        self[f"act{name}"] = self.activation()
        self.inputs = outputs

    def linear(self, name: str | int, units: int, bias: bool = True, act: str = "act") -> None:
        """A linear layer to ``units`` times the width, batch norm if there are norm layers, an activation."""
        outputs = scaled(units, self.width)
        self[f"fc{name}"] = nn.Linear(self.inputs, outputs, bias)
        if self.norm != "none":
            self[f"norm{name}"] = nn.BatchNorm1d(outputs)  # the sigmoid norm is for channels of images only
        self[f"{act}{name}"] = self.activation()
        self.inputs = outputs


def stages(
    block: Callable[[int, int, int], Any], inputs: int, channels: Sequence[int], blocks: Sequence[int]
) -> tuple[list[nn.Sequential], int]:
    """Stages of blocks, ``block(inputs, channels, stride)`` each, and the number of channels that the last one returns.

    Stage s has ``blocks[s]`` blocks of ``channels[s]`` channels; all stages but the first begin with stride 2.
    """
    found = []
    for s, (own, count) in enumerate(zip(channels, blocks, strict=True)):
        stage = nn.Sequential()
        for b in range(count):
            stage.append(part := block(inputs, own, 2 if s and b == 0 else 1))
            inputs = part.outputs
        found.append(stage)
    return found, inputs


def leaky_relu() -> nn.LeakyReLU:
    """SNIP-it's activation."""
    return nn.LeakyReLU(LEAK)
