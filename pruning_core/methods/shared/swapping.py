"""Layers put into a network before it is trained: norms where it has none, norms of another kind, gates."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

from pruning_core.errors import Unprunable
from pruning_core.masks import Group, Member, find_groups
from pruning_core.methods.base import weight_rows
from pruning_core.models.layers.gates import ChannelGate, Gated, HardConcreteGate

Gate = HardConcreteGate | ChannelGate


def swap_norms(model: nn.Module, flat: Any, image: Any, make: Callable[[Any, nn.Module], nn.Module]) -> nn.Module:
    """Exchange every ordinary batch norm with a scale for ``make(kind, norm)``, where ``kind`` is ``flat`` for 1-d norms
    and ``image`` for 2-d ones; returns the network, or what it has become."""
    kinds = {nn.BatchNorm1d: flat, nn.BatchNorm2d: image}
    for name, module in list(model.named_modules()):
        if type(module) in kinds and module.weight is not None:
            made = make(kinds[type(module)], module)
            if not name:
                return made
            model.set_submodule(name, made)
    return model


def with_norms(model: nn.Module, example_input, flat: type = nn.BatchNorm1d, image: type = nn.BatchNorm2d) -> nn.Module:
    """Put a norm behind every layer that makes prunable channels, if the network has no batch norm at all; in place.

    ``flat(channels)`` goes behind linear layers and 1-d convolutions, ``image(channels)`` behind 2-d convolutions. The
    layer's bias, which a batch norm cancels, becomes the shift of the norm where it has one. Raises Unprunable where no
    such layer is found.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return model
    kinds = {nn.Linear: flat, nn.Conv1d: flat, nn.Conv2d: image}
    rows = [row for group in find_groups(model, example_input) if not group.reason_fixed for row in weight_rows(group)]
    layers: dict[str, Any] = {row.layer: model.get_submodule(row.layer) for row in rows}
    layers = {name: layer for name, layer in layers.items() if type(layer) in kinds}
    if not layers:
        raise Unprunable(f"{type(model).__name__} has no batch norm, and no layer that one could be put behind.")
    for name, layer in layers.items():
        norm: Any = kinds[type(layer)](len(layer.weight)).to(layer.weight).train(layer.training)
        if layer.bias is not None:
            if norm.bias is not None:
                norm.bias.data.copy_(layer.bias.data)
            layer.register_parameter("bias", None)
        model.set_submodule(name, nn.Sequential(OrderedDict(layer=layer, norm=norm)))
    return model


def gates_of(model: nn.Module, group: Group, kind: type[Gate]) -> list[Member]:
    """The gates of this kind that act on a group's channels."""
    return [m for m in group.normalises if isinstance(model.get_submodule(m.layer), kind)]


def gates_behind_layers(model: nn.Module, example_input, make: Callable[[int], Gate]) -> nn.Module:
    """``make(channels)`` behind every layer that alone produces a group of channels; changed in place."""
    for group in find_groups(model, example_input):
        rows = weight_rows(group)
        if group.reason_fixed is None and len(rows) == 1 and len(rows[0].indices) == group.size:
            weight = model.get_parameter(rows[0].parameter)
            if weight.shape[rows[0].dim] == group.size:
                _put(model, rows[0].layer, make(group.size).to(weight))
    return model


def gates_behind_norms(model: nn.Module, example_input, make: Callable[[int], ChannelGate]) -> nn.Module:
    """``make(channels)`` behind every batch norm, and behind the layers of channels that meet none; changed in place."""
    gated = {name for name, module in model.named_modules() if isinstance(module, Gated)}
    for name, norm in list(model.named_modules()):
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and name.rpartition(".")[0] not in gated:
            _put(model, name, make(norm.num_features))
    for group in find_groups(model, example_input):
        if group.reason_fixed is None and not gates_of(model, group, ChannelGate):
            for row in weight_rows(group):
                layer = model.get_submodule(row.layer)
                width = model.get_parameter(row.parameter).shape[row.dim]
                _put(model, row.layer, make(getattr(layer, "out_channels", width)))  # a slice may make several
    return model


def _put(model: nn.Module, name: str, gate: Gate) -> None:
    model.set_submodule(name, Gated(model.get_submodule(name), gate))
