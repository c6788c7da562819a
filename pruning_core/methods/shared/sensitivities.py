r"""Empirical sensitivities of SiPP and PFP: the largest share that a weight has in the output it feeds, over a set S.

With a non-negative input a and one sign of a filter's weights at a time (Baykal et al. 2019, Liebenwein et al. 2020):

    g_ie(x) = max_p  w_ie a_ep(x) / z_ip(x),      z_ip = sum_e w_ie a_ep  over the weights of the same sign
    s_ie    = max_{x in S} g_ie(x)

e runs over inputs (and kernel positions), p over output positions. Inputs with negative entries count as two points,
max(a, 0) and max(-a, 0). The bias takes no part. A channel's sensitivity is the largest of its weights', or, summed over
the kernel, the largest share of the whole feature map.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import Floats, Real, check, checked
from pruning_core.errors import BadInput, Unprunable, known_name
from pruning_core.methods.shared.reading import unfolded
from pruning_core.models.calls import raised
from pruning_core.models.ready import check_shapes

# The zero test of the official code, in whatever precision: below this an output counts as switched off.
SMALLEST_OUTPUT = 1.1920929e-07
BLOCK = 2**19  # numbers that are unfolded at a time


class LayerSensitivities(NamedTuple):
    """``weight``: like the layer's weight; ``channel``: (in channels,), or (0,) where it was not asked for; ``positions``:
    output positions P of one input."""

    weight: Tensor
    channel: Tensor
    positions: int


@checked
def sensitivity(
    layer: nn.Module, inputs: Iterable[Tensor], reduce: str = "max", kernel: str = "reduce"
) -> LayerSensitivities:
    """Sensitivities of a Linear or Conv2d layer over all ``inputs`` (each (N, in), (N, T, in) or (N, C, H, W)).

    ``reduce`` over output positions and kernel positions: "max" (the theory, sampling and filter methods) or "mean"
    (deterministic SiPP). ``kernel``: what a channel's sensitivity makes of its kernel positions, the same reduction, or
    the "sum" of their shares. The result does not depend on how the points are cut into batches.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> sensitivity(layer, [torch.ones(1, 2)]).weight
    tensor([[0.7500, 0.2500]])
    """
    running = RunningSensitivity(layer, reduce, kernel)
    for batch in inputs:
        running.add(batch)
    return running.result()


class RunningSensitivity:
    """The sensitivities of one layer over the inputs seen so far; memory does not grow with their number.

    ``channels=False`` leaves out those of channels, which cost a pass a point where ``reduce`` is "mean".
    """

    def __init__(self, layer: nn.Module, reduce: str = "max", kernel: str = "reduce", channels: bool = True):
        known_name("reduction", reduce, ("max", "mean"))
        known_name("reduction over the kernel", kernel, ("reduce", "sum"))
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise Unprunable(
                f"sensitivities are defined for linear and 2-d convolutional layers, not {type(layer).__name__}."
            )
        if kernel == "sum" and reduce != "max":
            raise BadInput("shares are summed over the kernel before a maximum, so kernel='sum' needs reduce='max'.")
        check_shapes(layer)
        check("the weight of the layer", layer.weight.detach(), Floats())
        self.layer, self.reduce, self.kernel = layer, reduce, kernel
        weight = raised(layer.weight.detach())  # in half precision one over a small output overflows
        self.rows = weight.flatten(1)
        self.groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        self.window = weight[0, 0].numel() if weight.dim() == 4 else 1
        self.total = torch.zeros_like(self.rows)
        self.channel = weight.new_zeros(weight.shape[1] * self.groups if channels else 0)
        self.positions = 1

    def add(self, batch: Tensor) -> None:
        """Take more inputs into account. Raises BadInput where they are NaN or infinite."""
        if not bool(torch.isfinite(batch).all()):
            raise BadInput("the activations that sensitivities are taken of are NaN or infinite for these samples.")
        points = batch.to(self.rows)
        if bool((points < 0).any()):
            points = torch.cat([points.clamp(min=0), (-points).clamp(min=0)])
        # What a channel makes of its kernel positions is taken point by point where it is a mean.
        one_by_one = self.reduce == "mean" and self.window > 1 and len(self.channel) > 0
        # A few points at a time: what is unfolded then stays in the processor's cache.
        size = self.window * points[0].numel()
        for part in points.split(max(1, BLOCK // max(1, size))):
            columns = unfolded(self.layer, part).permute(1, 0, 3, 2)  # (groups, N, P, e)
            self.positions = columns.shape[2]
            for points_of_groups in columns.split(1, 1) if one_by_one else [columns]:
                for g in range(self.groups):
                    self._add_group(g, points_of_groups[g])

    def _add_group(self, g: int, columns: Tensor) -> None:
        mine = slice(g * len(self.rows) // self.groups, (g + 1) * len(self.rows) // self.groups)
        share, window = _shares(self.rows[mine], columns, self.reduce, self.window if self.kernel == "sum" else 1)
        self.total[mine] = torch.maximum(self.total[mine], share)
        if not len(self.channel):
            return
        if self.kernel == "sum":
            by_channel = window.amax(0)
        else:
            by_channel = share.view(len(share), -1, self.window)
            by_channel = (by_channel.amax(2) if self.reduce == "max" else by_channel.mean(2)).amax(0)
        own = slice(g * len(by_channel), (g + 1) * len(by_channel))
        self.channel[own] = torch.maximum(self.channel[own], by_channel)

    def result(self) -> LayerSensitivities:
        """What has been found so far."""
        return LayerSensitivities(self.total.view_as(self.layer.weight), self.channel, self.positions)


def _shares(rows: Tensor, columns: Tensor, reduce: str, window: int) -> tuple[Tensor, Tensor]:
    """Reduced share of every weight in its filter's output of the same sign; rows (out, e), columns (N, P, e) -> (out, e).

    The second result is the same for sums over ``window`` neighbouring entries, (out, e / window).
    """
    # Imported where it is needed: the compiler behind it takes a second to load.
    from pruning_core.methods.shared.products import largest_products

    mean = reduce == "mean" and columns.shape[1] > 1
    if not mean:  # over points and over positions is one maximum
        columns = columns.flatten(0, 1)[None]
    signs = [(rows * sign).clamp(min=0) for sign in (1.0, -1.0)]
    outputs = [columns @ half.T for half in signs]  # (N, P, out) each
    inverses = [torch.where(z.abs() <= SMALLEST_OUTPUT, 0, 1 / z) for z in outputs]
    share = rows.abs() * largest_products(columns, inverses[0], inverses[1], rows, mean)
    return share, _largest_windows(signs, columns[0], [i[0] for i in inverses], window) if window > 1 else share


def _largest_windows(signs: list[Tensor], columns: Tensor, inverses: list[Tensor], window: int) -> Tensor:
    """Largest share of ``window`` neighbouring weights of one sign together, (out, e / window)."""
    out, inputs = signs[0].shape
    summed = signs[0].new_zeros(out, inputs // window)
    for i in range(out):
        for half, inverse in zip(signs, inverses, strict=True):
            shares = (columns * half[i]).view(len(columns), -1, window).sum(2) * inverse[:, i, None]
            summed[i] = torch.maximum(summed[i], shares.amax(0))
    return summed


PROBABILITY = Real(above=0, below=1)  # what the probability ``delta`` that a guarantee fails must be
CONSTANT = Real(above=0)  # what the constant C of the theory must be


@checked(delta=None, constant=Real())
def sample_size(outputs: float, largest: float, delta: float = 1e-16, constant: float = 3.0) -> int:
    """How many points S must hold: ``ceil(C ln(8 eta* eta / delta))``, as the official code computes it.

    ``outputs`` is eta, the number of output scalars of all layers for one input, ``largest`` eta*, that of the largest layer.

    >>> sample_size(410, 300, delta=1e-16)
    152
    """
    delta = check("delta", delta, PROBABILITY)
    if outputs < 1 or largest < 1 or constant <= 0:
        raise BadInput(f"numbers of outputs and the constant are positive, not {outputs}, {largest} and {constant}.")
    return math.ceil(constant * math.log(8 * outputs * largest / delta))
