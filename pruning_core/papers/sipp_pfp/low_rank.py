"""Low rank in place of pruning: the truncated singular value decomposition, a baseline outside the catalogue.

It has no mask, so it is no method: a layer becomes two smaller ones.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from pruning_core.checks import Real, check
from pruning_core.errors import Unprunable


def low_rank(model: nn.Module, sparsity: float) -> tuple[nn.Module, dict[str, int]]:
    """A copy of ``model`` whose linear layers and convolutions are products of two, and the rank of each.

    The weight (outputs, inputs k1 k2) of a layer becomes U (outputs, rank) times V (rank, inputs k1 k2), with the largest
    rank for which both together have at most ``(1 - sparsity)`` times its entries, at least 1. Layers for which that saves
    nothing stay as they are, as do grouped convolutions and the inside of torch's attention. Raises Unprunable when there
    is no layer to decompose.
    """
    sparsity = check("sparsity", sparsity, Real(at_least=0, below=1))
    smaller = copy.deepcopy(model)
    ranks = {}
    for name, module in list(smaller.named_modules()):
        if not name or not _can_be_split(module):
            continue
        if isinstance(smaller.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
            continue  # it reads the weight of its output layer itself
        weight = module.weight.detach().flatten(1)
        rank = max(int((1 - sparsity) * weight.numel() / sum(weight.shape)), 1)
        if rank * sum(weight.shape) < weight.numel():
            parent, _, child = name.rpartition(".")
            setattr(smaller.get_submodule(parent), child, _split(module, rank))
            ranks[name] = rank
    if not ranks:
        raise Unprunable(f"{type(model).__name__} has no layer that a lower rank would make smaller.")
    return smaller, ranks


def _can_be_split(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _split(layer, rank: int) -> nn.Sequential:
    """The two layers: first V, then U with the bias."""
    weight = layer.weight.detach()
    u, sizes, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    left, right = u[:, :rank] * sizes[:rank].sqrt(), sizes[:rank].sqrt()[:, None] * v[:rank]
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
        second: nn.Module = nn.Linear(rank, layer.out_features, bias=bias)
    else:
        geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        first = nn.Conv2d(
            layer.in_channels, rank, layer.kernel_size, bias=False, padding_mode=layer.padding_mode, **geometry
        )
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
    with torch.no_grad():
        first.weight = nn.Parameter(right.reshape(rank, *weight.shape[1:]).contiguous())  # type: ignore[assignment]
        shape = (len(weight), rank, *[1] * (weight.dim() - 2))
        second.weight = nn.Parameter(left.reshape(math.prod(shape[:1]), *shape[1:]).contiguous())  # type: ignore[assignment]
        if bias:
            second.bias = nn.Parameter(layer.bias.detach().clone())  # type: ignore[assignment]
    return nn.Sequential(first, second).requires_grad_(layer.weight.requires_grad).train(layer.training)
