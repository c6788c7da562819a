"""Low rank in place of pruning: the truncated singular value decomposition, a baseline. It has no mask, so it is no method."""

from typing import Any

import torch
from torch import nn

from pruning_core.checks import Real, check
from pruning_core.errors import Unprunable
from pruning_core.models.modes import copied


def low_rank(model: nn.Module, sparsity: float) -> tuple[nn.Module, dict[str, int]]:
    """A copy of ``model`` whose linear layers and convolutions are products of two, and the rank of each.

    The weight (outputs, inputs k1 k2) of a layer becomes U (outputs, rank) times V (rank, inputs k1 k2), with the largest
    rank for which both together have at most ``(1 - sparsity)`` times its entries, at least 1. Layers for which that saves
    nothing stay as they are, as do grouped convolutions and the inside of torch's attention. Raises Unprunable when there
    is no layer to decompose.
    """
    sparsity = check("sparsity", sparsity, Real(at_least=0, below=1))
    smaller = copied(model)
    ranks = {}
    for name, module in list(smaller.named_modules()):
        parent, _, child = name.rpartition(".")
        owner = smaller.get_submodule(parent)
        if not isinstance(module, nn.Linear | nn.Conv2d) or getattr(module, "groups", 1) > 1:
            continue
        if not name or isinstance(owner, nn.MultiheadAttention):
            continue  # torch's attention reads the weight of its output layer itself
        size, each = module.weight.numel(), sum(module.weight.flatten(1).shape)
        rank = max(int((1 - sparsity) * size / each), 1)
        if rank * each < size:
            setattr(owner, child, _split(module, rank))
            ranks[name] = rank
    if not ranks:
        raise Unprunable(f"{type(model).__name__} has no layer that a lower rank would make smaller.")
    return smaller, ranks


@torch.no_grad()
def _split(layer: nn.Linear | nn.Conv2d, rank: int) -> nn.Sequential:
    weight = layer.weight
    u, sizes, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    left, right = u[:, :rank] * sizes[:rank].sqrt(), sizes[:rank].sqrt()[:, None] * v[:rank]
    place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first: Any = nn.Linear(layer.in_features, rank, bias=False, **place)
        second: Any = nn.Linear(rank, layer.out_features, bias=bias, **place)
    else:
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        first = nn.Conv2d(layer.in_channels, rank, bias=False, **{n: getattr(layer, n) for n in names}, **place)
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=bias, **place)
    first.weight.copy_(right.view_as(first.weight))
    second.weight.copy_(left.view_as(second.weight))
    if layer.bias is not None:
        second.bias.copy_(layer.bias)
    return nn.Sequential(first, second).requires_grad_(layer.weight.requires_grad).train(layer.training)
