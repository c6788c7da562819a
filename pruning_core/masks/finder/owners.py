"""Which layer a tensor is the weight of, and where torch makes that weight anew from it before every forward pass."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from pruning_core.models.ready import computing_hook

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def weight_of(name: str, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    """The convolution or linear layer whose weight this is, or from which torch makes its weight; None for other tensors."""
    layer, _, leaf = name.rpartition(".")
    parametrised, found, _ = name.rpartition(".parametrizations.weight.")
    if not found and leaf not in ("weight", "weight_v", "weight_orig"):
        return None
    module = modules[parametrised if found else layer]
    return module if isinstance(module, (*CONVOLUTIONS, nn.Linear)) else None


def made_of(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """What to do where the weight of a layer is computed from this tensor; None where it is not."""
    layer, _, leaf = name.rpartition(".")
    module = modules[layer]
    if isinstance(module, ParametrizationList):
        of, _, weight = layer.rpartition(".parametrizations.")
        remedy = f"torch.nn.utils.parametrize.remove_parametrizations(layer, {weight!r})"
        return f"the {weight} of {of!r} is parametrised, made anew from other tensors: {remedy} makes it a plain one"
    where, remedy = computing_hook(module) or ("", "")
    if where and leaf not in ("weight", "bias"):
        return (
            f"layer {layer!r} is under {where}, whose hook computes its weight: call {remedy}, which keeps the values"
        )
    return None
