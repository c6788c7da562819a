"""Batch norms for a network that has none."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.errors import Unprunable
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import weight_rows
from pruning_core.methods.shared.swapping import swap


def with_norms(model: nn.Module, example_input, flat: type[nn.Module], image: type[nn.Module]) -> nn.Module:
    """Put a norm behind every layer that makes prunable channels, if the network has no batch norm at all; in place.

    ``flat(channels)`` goes behind linear layers and 1-d convolutions, ``image(channels)`` behind 2-d convolutions. The
    layer's bias, which a batch norm cancels, becomes the shift of the norm where it has one. Raises Unprunable where no
    such layer is found.
    """
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return model
    places = {nn.Linear: flat, nn.Conv1d: flat, nn.Conv2d: image}
    found = 0
    for group in find_groups(model, example_input):
        if group.reason_fixed is not None:
            continue
        for row in weight_rows(group):
            layer: Any = model.get_submodule(row.layer)
            kind = places.get(type(layer))
            if kind is not None:
                _insert(model, row.layer, layer, kind(len(layer.weight)))
                found += 1
    if not found:
        raise Unprunable(f"{type(model).__name__} has no batch norm, and no layer that one could be put behind.")
    return model


def _insert(model: nn.Module, name: str, layer, norm) -> None:
    norm.to(layer.weight)
    if layer.bias is not None:
        if norm.bias is not None:
            norm.bias.data.copy_(layer.bias.data)
        layer.register_parameter("bias", None)
    together = nn.Sequential()
    together.add_module("layer", layer)
    together.add_module("norm", norm.train(layer.training))
    swap(model, name, together)
