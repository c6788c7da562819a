"""Layers of a network exchanged for others, in place, before it is trained."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def swap(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` where the network has the layer ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def swap_norms(model: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Exchange every ordinary batch norm with a scale for ``make(norm)``; returns the network, or what it has become."""
    for name, module in list(model.named_modules()):
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) and module.weight is not None:
            if not name:
                return make(module)
            swap(model, name, make(module))
    return model
