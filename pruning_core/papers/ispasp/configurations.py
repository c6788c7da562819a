"""Which blocks of a network the i-SpaSP paper prunes, and to which widths; what such a network costs.

Both networks are torchvision's. Only the width inside a block changes, so the skip connections stay as they are. A ratio is
the fraction *kept*, and ``s = int(width * ratio)``, in floating point, as the official scripts compute it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from pruning_core.checks import Real, check, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.masks.groups import expand
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.methods.shrinking import shrunk
from pruning_core.models.build import build_model
from pruning_core.models.cost import count_macs, count_parameters, norm_operations, weightless_copy

EXAMPLE = torch.zeros(1, 3, 224, 224)  # one image of ImageNet
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # ResNet-34: blocks and width of every stage
EXPANSIONS = (96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960)  # features 2 to 17


class Cost(NamedTuple):
    """Multiply-accumulates for one image, the same with two a value for batch norm as the paper counts, parameters, and
    the width inside every block that was named."""

    macs: int
    macs_with_norm: int
    parameters: int
    widths: Mapping[str, int]


def kept_width(width: int, ratio: float) -> int:
    """``int(width * ratio)``, computed as the official scripts do. Raises BadInput where nothing would be kept."""
    s = int(width * check("a kept ratio", ratio, Real(above=0, at_most=1)))
    if s < 1:
        raise BadInput(f"the ratio {ratio} keeps none of {width} channels; keep at least one.")
    return s


@checked
def resnet34_configuration(
    ratios: Sequence[float] = (0.4, 0.4, 0.4, 1.0), last_blocks: bool = False
) -> dict[str, float]:
    """Channel group -> fraction removed for ResNet-34, one kept ratio a stage; the first block of a stage stays whole.

    ``last_blocks``: whether the last block of every stage is pruned too (the script's --prune-last-layer).

    >>> len(resnet34_configuration())
    7
    """
    if len(ratios) != len(STAGES):
        raise BadInput(f"ResNet-34 has {len(STAGES)} stages, so it takes that many ratios, not {len(ratios)}.")
    removed = {}
    for stage, (ratio, (blocks, width)) in enumerate(zip(ratios, STAGES, strict=True), start=1):
        s = kept_width(width, ratio)
        if ratio < 1:
            for block in range(1, blocks if last_blocks else blocks - 1):
                removed[f"layer{stage}.{block}.conv1"] = 1 - s / width
    return removed


@checked
def mobilenetv2_configuration(ratio: float = 0.3, blocks: Sequence[int] = (6, 9, 10, 12, 13)) -> dict[str, float]:
    """Channel group -> fraction removed for MobileNetV2: one kept ratio for the inverted residuals ``features[block]``.

    >>> len(mobilenetv2_configuration(0.3)), next(iter(mobilenetv2_configuration(0.3).items()))
    (5, ('features.6.conv.0.0', 0.703125))
    """
    removed = {}
    for block in blocks:
        if not 2 <= block < 2 + len(EXPANSIONS):
            raise BadInput(f"MobileNetV2 has inverted residuals with expansion at features 2 to 17, not at {block}.")
        width = EXPANSIONS[block - 2]
        removed[f"features.{block}.conv.0.0"] = 1 - kept_width(width, ratio) / width
    return removed


@checked
def cost(name: str, removed: Mapping[str, float]) -> Cost:
    """What a network of torchvision costs, for images of 224 x 224, without these fractions of its channel groups.

    Which of their channels go does not matter, as only shapes are computed. Raises UnknownName for an unknown group.

    >>> cost("torchvision/resnet18", {"layer1.0.conv1": 0.5}).widths
    {'layer1.0.conv1': 32}
    """
    network, sites = _prepared(name)
    keep = {}
    for group_name, fraction in removed.items():
        group = sites.groups[known_name("channel group", group_name, sites.groups)]
        keep[group_name] = torch.arange(group.size) < round((1 - fraction) * group.size)
    small = shrunk(network, expand(keep, sites.groups, sites.shapes), sites)[0] if keep else network
    widths = {group_name: len(small.get_parameter(f"{group_name}.weight")) for group_name in removed}
    shapes, meta = weightless_copy(small), EXAMPLE.to("meta")
    macs = count_macs(shapes, meta)
    return Cost(macs, macs + norm_operations(shapes, meta), count_parameters(small), widths)


@cache
def _prepared(name: str) -> tuple[nn.Module, Sites]:
    model = build_model(name, "imagenet", seed=0)
    return model, find_sites(model, channels=True, example_input=EXAMPLE)
