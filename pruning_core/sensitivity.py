r"""Empirical sensitivities of SiPP and PFP: the largest share that a weight has in the output it feeds, over a set S.

With a non-negative input a and one sign of a filter's weights at a time (Baykal et al. 2019, Liebenwein et al. 2020):

    g_ie(x) = max_p  w_ie a_ep(x) / z_ip(x),      z_ip = sum_e w_ie a_ep  over the weights of the same sign
    s_ie    = max_{x in S} g_ie(x)

e runs over inputs (and kernel positions), p over output positions. Inputs with negative entries count as two points,
max(a, 0) and max(-a, 0). The bias takes no part. A channel's sensitivity is the largest of its weights', or, summed over
the kernel, the largest share of the whole feature map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import BadInput, Unprunable, known_name

# The zero test of the official code, in whatever precision: below this an output counts as switched off.
SMALLEST_OUTPUT = 1.1920929e-07
BLOCK = 2**17  # numbers in a block of patches


class Sensitivity(NamedTuple):
    """``weight``: like the layer's weight; ``channel``: (in channels,); ``positions``: output positions P of one input."""

    weight: Tensor
    channel: Tensor
    positions: int


def sensitivity(layer: nn.Module, inputs: Iterable[Tensor], reduce: str = "max", kernel: str = "reduce") -> Sensitivity:
    """Sensitivities of a Linear or Conv2d layer over all ``inputs`` (each (N, in), (N, T, in) or (N, C, H, W)).

    ``reduce`` over output positions and kernel positions: "max" (the theory, sampling and filter methods) or "mean"
    (deterministic SiPP). ``kernel``: what a channel's sensitivity makes of its kernel positions, the same reduction, or
    the "sum" of their shares. The result does not depend on how the points are cut into batches.
    """
    running = RunningSensitivity(layer, reduce, kernel)
    for batch in inputs:
        running.add(batch)
    return running.result()


class RunningSensitivity:
    """The sensitivities of one layer over the inputs seen so far; memory does not grow with their number."""

    def __init__(self, layer: nn.Module, reduce: str = "max", kernel: str = "reduce"):
        known_name("reduction", reduce, ("max", "mean"))
        known_name("reduction over the kernel", kernel, ("reduce", "sum"))
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise Unprunable(
                f"sensitivities are defined for linear and 2-d convolutional layers, not {type(layer).__name__}."
            )
        if kernel == "sum" and reduce != "max":
            raise BadInput("shares are summed over the kernel before a maximum, so kernel='sum' needs reduce='max'.")
        self.layer, self.reduce, self.kernel = layer, reduce, kernel
        weight = layer.weight.detach()
        if weight.dtype in (torch.float16, torch.bfloat16):
            weight = weight.float()  # in half precision one over a small output overflows
        self.rows = weight.flatten(1)
        self.groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        self.window = weight[0, 0].numel() if weight.dim() == 4 else 1
        self.total = torch.zeros_like(self.rows)
        self.channel = weight.new_zeros(weight.shape[1] * self.groups)
        self.positions = 1

    def add(self, batch: Tensor) -> None:
        """Take more inputs into account. Raises BadInput where they are NaN or infinite."""
        if not bool(torch.isfinite(batch).all()):
            raise BadInput("the activations that sensitivities are taken of are NaN or infinite for these samples.")
        patches = unfolded(self.layer, _non_negative(batch.to(self.rows)))  # (N, groups, e, P)
        self.positions = patches.shape[-1]
        # The maximum over points and the maximum over positions are one; a mean is taken point by point.
        together = self.reduce == "max" or self.positions == self.window == 1
        points = [patches.permute(1, 2, 0, 3).flatten(2)] if together else patches
        for point in points:
            for g in range(self.groups):
                self._add(g, point[g], "max" if together else "mean")

    def _add(self, g: int, patches: Tensor, reduce: str) -> None:
        mine = slice(g * len(self.rows) // self.groups, (g + 1) * len(self.rows) // self.groups)
        share, window = _shares(self.rows[mine], patches, reduce, self.window if self.kernel == "sum" else 1)
        self.total[mine] = torch.maximum(self.total[mine], share)
        if self.kernel == "sum":
            by_channel = window.amax(0)
        else:
            by_channel = share.view(len(share), -1, self.window)
            by_channel = (by_channel.amax(2) if self.reduce == "max" else by_channel.mean(2)).amax(0)
        own = slice(g * len(by_channel), (g + 1) * len(by_channel))
        self.channel[own] = torch.maximum(self.channel[own], by_channel)

    def result(self) -> Sensitivity:
        """What has been found so far."""
        return Sensitivity(self.total.view_as(self.layer.weight), self.channel, self.positions)


def _shares(rows: Tensor, patches: Tensor, reduce: str, window: int) -> tuple[Tensor, Tensor]:
    """Reduced share of every weight in its filter's output of the same sign; rows (out, e), patches (e, P) -> (out, e).

    The second result is the same for sums over ``window`` neighbouring entries, (out, e / window).
    """
    signs = [(rows * sign).clamp(min=0) for sign in (1.0, -1.0)]
    outputs = [half @ patches for half in signs]  # (out, P) each
    inverses = [torch.where(z.abs() <= SMALLEST_OUTPUT, 0, 1 / z) for z in outputs]
    if reduce == "mean":
        reach = [inverse @ patches.T / patches.shape[1] for inverse in inverses]
        share = torch.maximum(signs[0] * reach[0], signs[1] * reach[1])
        return share, share
    share = torch.zeros_like(rows)
    summed = rows.new_zeros(len(rows), rows.shape[1] // window)
    # Blocks of positions that stay in the processor's cache; nothing is larger than the patches themselves.
    for block, *scales in zip(*(t.split(max(64, BLOCK // len(patches)), 1) for t in (patches, *inverses)), strict=True):
        for i, row in enumerate(rows):
            most = [(block * scale[i]).amax(1) for scale in scales]
            share[i] = torch.maximum(share[i], torch.where(row > 0, signs[0][i] * most[0], signs[1][i] * most[1]))
            if window > 1:
                for half, scale in zip(signs, scales, strict=True):
                    windows = (block * half[i][:, None]).view(-1, window, block.shape[1]).sum(1)
                    summed[i] = torch.maximum(summed[i], (windows * scale[i]).amax(1))
    return share, summed if window > 1 else share


def sample_size(outputs: int, largest: int, delta: float = 1e-16, constant: float = 3.0) -> int:
    """How many points S must hold: ``ceil(C ln(8 eta* eta / delta))``, as the official code computes it.

    ``outputs`` is eta, the number of output scalars of all layers for one input, ``largest`` eta*, that of the largest layer.

    >>> sample_size(410, 300, delta=1e-16)
    152
    """
    check_delta(delta)
    if outputs < 1 or largest < 1 or constant <= 0:
        raise BadInput(f"numbers of outputs and the constant are positive, not {outputs}, {largest} and {constant}.")
    return math.ceil(constant * math.log(8 * outputs * largest / delta))


def check_constants(constant: float, delta: float) -> None:
    """Raise BadInput unless C, the ``constant`` of the theory, is positive and ``delta`` a probability in (0, 1)."""
    check_delta(delta)
    if not constant > 0:
        raise BadInput(f"the constant C must be positive, not {constant}.")


def check_delta(delta: float) -> None:
    """Raise BadInput unless ``delta`` is a probability in (0, 1)."""
    if not 0 < delta < 1:
        raise BadInput(f"delta is the probability that the guarantee fails, in (0, 1), not {delta}.")


def _non_negative(batch: Tensor) -> Tensor:
    return torch.cat([batch.clamp(min=0), (-batch).clamp(min=0)]) if bool((batch < 0).any()) else batch


def unfolded(layer: nn.Module, points: Tensor) -> Tensor:
    """What a Linear, Conv1d or Conv2d layer sees at every output position: (N, groups, inputs of a filter, P)."""
    if isinstance(layer, nn.Linear):
        return points.flatten(1, -2).transpose(1, 2)[:, None] if points.dim() > 2 else points[:, None, :, None]
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    padding: Any = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        points, padding = F.pad(points, layer._reversed_padding_repeated_twice, mode=mode), 0
    geometry: list[Any] = [layer.kernel_size, layer.dilation, padding, layer.stride]
    if isinstance(layer, nn.Conv1d):  # an image of height 1; a number is a padding that has been carried out
        points = points.unsqueeze(2)
        geometry = [(0 if i == 2 else 1, *part) if isinstance(part, tuple) else part for i, part in enumerate(geometry)]
    columns = F.unfold(points, *geometry)
    return columns.view(len(points), layer.groups, -1, columns.shape[-1])
