r"""Empirical sensitivities of SiPP and PFP: the largest share that a weight has in the output it feeds, over a set S.

With a non-negative input a and one sign of a filter's weights at a time (Baykal et al. 2019, Liebenwein et al. 2020):

    g_ie(x) = max_p  w_ie a_ep(x) / z_ip(x),      z_ip = sum_e w_ie a_ep  over the weights of the same sign
    s_ie    = max_{x in S} g_ie(x)

e runs over inputs (and kernel positions), p over output positions. Inputs with negative entries count as two points,
max(a, 0) and max(-a, 0). The bias takes no part. A channel's sensitivity is the largest of its weights'.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import Unprunable, known_name

# The zero test of the official code, in whatever precision: below this an output counts as switched off.
SMALLEST_OUTPUT = 1.1920929e-07


class Sensitivity(NamedTuple):
    """``weight``: like the layer's weight; ``channel``: (in channels,); ``positions``: output positions P of one input."""

    weight: Tensor
    channel: Tensor
    positions: int


def sensitivity(layer: nn.Module, inputs: Iterable[Tensor], reduce: str = "max") -> Sensitivity:
    """Sensitivities of a Linear or Conv2d layer over all ``inputs`` (each (N, in) or (N, C, H, W)).

    ``reduce`` over output positions and kernel positions: "max" (the theory, sampling and filter methods) or "mean"
    (deterministic SiPP). The result does not depend on how the points are cut into batches.
    """
    known_name("reduction", reduce, ("max", "mean"))
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise Unprunable(
            f"sensitivities are defined for linear and 2-d convolutional layers, not {type(layer).__name__}."
        )
    weight = layer.weight.detach()
    rows = weight.flatten(1)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    kernel = weight[0, 0].numel() if weight.dim() == 4 else 1
    total = torch.zeros_like(rows)
    channel = weight.new_zeros(weight.shape[1] * groups)
    positions = 1
    for batch in inputs:
        patches = _patches(layer, _non_negative(batch.to(weight)))  # (N, groups, e, P)
        positions = patches.shape[-1]
        # The maximum over points and the maximum over positions are one; a mean is taken point by point.
        together = reduce == "max" or positions == 1
        points = [patches.permute(1, 2, 0, 3).flatten(2)] if together else patches
        for point in points:
            for g in range(groups):
                mine = slice(g * len(rows) // groups, (g + 1) * len(rows) // groups)
                share = _shares(rows[mine], point[g], "max" if together else "mean")
                total[mine] = torch.maximum(total[mine], share)
                by_channel = share.view(len(share), -1, kernel)
                by_channel = (by_channel.amax(2) if reduce == "max" else by_channel.mean(2)).amax(0)
                own = slice(g * len(by_channel), (g + 1) * len(by_channel))
                channel[own] = torch.maximum(channel[own], by_channel)
    return Sensitivity(total.view_as(weight), channel, positions)


def _shares(rows: Tensor, patches: Tensor, reduce: str) -> Tensor:
    """Reduced share of every weight in its filter's output of the same sign; rows (out, e), patches (e, P) -> (out, e)."""
    share = torch.zeros_like(rows)
    for sign in (1.0, -1.0):
        half = (rows * sign).clamp(min=0)
        outputs = half @ patches  # (out, P)
        inverse = torch.where(outputs.abs() <= SMALLEST_OUTPUT, 0, 1 / outputs)
        if reduce == "mean":
            reach = inverse @ patches.T / patches.shape[1]
        else:
            # One filter at a time keeps the memory at the size of the patches.
            reach = torch.stack([(patches * row).amax(1) for row in inverse])
        share = torch.maximum(share, half * reach)
    return share


def _non_negative(batch: Tensor) -> Tensor:
    return torch.cat([batch.clamp(min=0), (-batch).clamp(min=0)]) if bool((batch < 0).any()) else batch


def _patches(layer: nn.Module, points: Tensor) -> Tensor:
    """The inputs of every output position, (N, groups, inputs of a filter, P)."""
    if isinstance(layer, nn.Linear):
        return points.flatten(1, -2).transpose(1, 2)[:, None] if points.dim() > 2 else points[:, None, :, None]
    assert isinstance(layer, nn.Conv2d)
    padding: Any = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        points, padding = F.pad(points, layer._reversed_padding_repeated_twice, mode=mode), 0
    columns = F.unfold(points, layer.kernel_size, layer.dilation, padding, layer.stride)
    return columns.view(len(points), layer.groups, -1, columns.shape[-1])
