"""Second moments of hidden maps: least squares for the layer that reads them, and what each channel adds to its output."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.errors import Unprunable
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.reading import unfolded

LARGEST_SYSTEM = 10_000  # a square of float64 of this size takes 800 MB


def second_moments(hidden: Hidden) -> Tensor:
    """P P^T over all samples and output positions in float64: (groups, r + 1, r + 1).

    A column of P is what one output sees: r = inputs of a linear layer, or the patch (inputs of one group times
    kernel) of a convolution, with a one behind it for the offset.
    """
    total: Tensor | None = None
    seen = hidden.layer.weight[0].numel()
    if seen > LARGEST_SYSTEM:
        raise Unprunable(
            f"one output of the layer behind {hidden.name} sees {seen:,} values; least squares end at {LARGEST_SYSTEM:,}."
        )
    for chunk in hidden.chunks():
        patches = _patches(hidden.layer, chunk.double())  # (groups, r, columns)
        ones = patches.new_ones(len(patches), 1, patches.shape[2])
        patches = torch.cat([patches, ones], 1)
        part = patches @ patches.transpose(1, 2)
        total = part if total is None else total + part
    return hidden.checked(total)


def columns_of(hidden: Hidden) -> Tensor:
    """Which channel each of the r entries of a patch belongs to: (groups, r)."""
    weight = hidden.layer.weight
    groups = getattr(hidden.layer, "groups", 1)
    kernel = weight[0, 0].numel()
    return hidden.channel_of.view(groups, -1).repeat_interleave(kernel, 1)


def least_squares(hidden: Hidden, keep: Tensor, moments: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the reading layer that rebuild its dense outputs best from the channels in ``keep``.

    Both in the layer's shapes and in float64; entries of other channels are zero. The bias is None where the layer
    has none; otherwise it takes part in the fit.
    """
    weight: Tensor = hidden.layer.weight.detach().double().cpu()
    bias: Tensor | None = hidden.layer.bias
    rows = weight.flatten(1).view(len(moments), -1, weight[0].numel())
    columns = columns_of(hidden)
    fitted, offsets = torch.zeros_like(rows), []
    for g, moment in enumerate(moments.cpu()):
        # Columns of zeros were pruned before, and what they read may be anything.
        used = torch.where(columns[g] >= 0, keep[columns[g].clamp(min=0)], rows[g].abs().sum(0) > 0)
        used = torch.cat([used, torch.tensor([bias is not None])])
        target = moment[used][:, :-1] @ rows[g].T
        solution = _solved(moment[used][:, used], target).T
        if bias is not None:
            offsets.append(solution[:, -1])
            solution = solution[:, :-1]
        fitted[g][:, used[:-1]] = solution
    offset = None if bias is None else bias.detach().double().cpu() + torch.cat(offsets)
    return fitted.reshape(weight.shape), offset


def norm_scale(hidden: Hidden) -> Tensor:
    """By how much the batch norm behind the layer multiplies each of its outputs: (outputs,) in float64 on the CPU."""
    assert isinstance(hidden.exact, nn.Sequential)
    norm: Any = copy.deepcopy(hidden.exact[1]).cpu()
    positions = [1] * (0 if isinstance(norm, nn.BatchNorm1d) else 2)
    inputs = torch.stack([torch.zeros(norm.num_features), torch.ones(norm.num_features)]).double()
    low, high = norm(inputs.view(2, -1, *positions)).flatten(1)
    return high - low


def contributions(hidden: Hidden) -> Tensor:
    """Inner products <c_i, c_j> of what the channels add to the output, over all samples: (size, size) in float64."""
    weight: Tensor = hidden.layer.weight.detach().double().cpu()
    rows = weight.flatten(1)
    moments = second_moments(hidden)[:, :-1, :-1].cpu()
    if isinstance(hidden.consume, nn.Sequential):
        rows = rows * norm_scale(hidden)[:, None]
    columns = columns_of(hidden)
    found = torch.zeros(hidden.size, hidden.size, dtype=torch.float64)
    for g, part in enumerate(rows.view(len(moments), -1, rows.shape[1])):
        products = (part.T @ part) * moments[g]
        ours = columns[g] >= 0
        summed = torch.zeros(hidden.size, int(ours.sum()), dtype=torch.float64)
        summed.index_add_(0, columns[g][ours], products[ours][:, ours])
        found.index_add_(1, columns[g][ours], summed)
    return found


def _patches(layer: nn.Module, maps: Tensor) -> Tensor:
    """What every output of a layer sees, as columns: (groups, patch, samples x positions)."""
    if not isinstance(layer, nn.Linear):
        if not isinstance(layer, nn.Conv1d | nn.Conv2d) or layer.padding_mode != "zeros":
            raise Unprunable(f"least squares are not available behind {type(layer).__name__}.")
        if isinstance(layer.padding, str):
            raise Unprunable("least squares are not available for a convolution whose padding is given as a word.")
    return unfolded(layer, maps).permute(1, 2, 0, 3).flatten(2)


def _solved(square: Tensor, target: Tensor) -> Tensor:
    """The smallest least-squares solution; directions that no sample shows are left at zero, not blown up."""
    # Every entry in units of its own size, so that a small one is not taken for one that is never seen.
    sizes = square.diagonal().sqrt()
    units = torch.where(sizes > 0, 1 / sizes, 0.0)
    square, target = square * units[:, None] * units, target * units[:, None]
    factor, failed = torch.linalg.cholesky_ex(square)
    if not failed and float(factor.diagonal().min()) > 1e-5:
        return units[:, None] * torch.cholesky_solve(target, factor)
    values, vectors = torch.linalg.eigh(square)
    inverse = torch.where(values > 1e-12 * values[-1], 1 / values, 0.0)
    return units[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ target)))
