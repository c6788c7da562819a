"""What the networks share: the entry of one variant, scaled widths, convolutions with their norms, stages of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pruning_core.checks import A, checked
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.records.files import read_yaml

Shape = tuple[int, int, int]
Builder = Callable[[Shape, int, float, str], nn.Module]
"""(shape of one image (C, H, W), classes, width factor, norm) -> network."""
Initialiser = Callable[[nn.Module], None]
LEAK = 0.05  # slope of SNIP-it's leaky ReLU

NETWORKS: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("networks.yml"))


NORMS = ("batch", "sigmoid", "none")
"""What may stand behind layers, where a network has a choice."""


@checked(about=A(str, "a text"))  # that of your own network may be empty
@dataclass(frozen=True)
class ModelInfo:
    """One variant of the literature: how it is built, and what ``networks.yml`` says about it.

    >>> import pruning_core as pc
    >>> pc.MODELS["lenet300"].shape, pc.MODELS["lenet300"].classes
    ((1, 28, 28), 10)
    """

    build: Builder
    initialise: Initialiser
    paper: str  # who published this variant (citation keys of the book)
    about: str
    parameters: int  # at `shape` and `classes`, width 1, the variant's own norm
    shape: Shape = (3, 32, 32)
    classes: int = 10
    norms: tuple[str, ...] = NORMS
    smallest: int = 1  # height and width of the smallest image that passes all layers


def scaled(channels: int, width: float) -> int:
    """``channels`` times the width factor, rounded, at least 1."""
    return max(1, round(channels * width))


def conv2d(inputs: int, outputs: int, kernel: int, stride: int, norm: str, bias: bool = False) -> nn.Conv2d:
    """A convolution padded by half its kernel; unless asked for, a bias only where no norm layer follows to shift."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias or norm == "none")


def norm2d(norm: str, channels: int) -> nn.Module:
    """The layer behind a convolution: batch norm, RNI's sigmoid batch norm, or nothing."""
    if norm == "none":
        return nn.Identity()
    return SigmoidBatchNorm2d(channels) if norm == "sigmoid" else nn.BatchNorm2d(channels)


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
