"""Gates put behind the layers of a network, and found again."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.masks.groups import Group, Member
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.base import weight_rows
from pruning_core.methods.shared.swapping import swap
from pruning_core.models.layers.gates import ChannelGate, Gated, HardConcreteGate

Gate = HardConcreteGate | ChannelGate


def gates_of(model: nn.Module, group: Group, kind: type[Gate]) -> list[Member]:
    """The gates of this kind that act on a group's channels."""
    return [m for m in group.normalises if isinstance(model.get_submodule(m.layer), kind)]


def gates_behind_layers(model: nn.Module, example_input, make: Callable[[int], Gate]) -> nn.Module:
    """``make(channels)`` behind every layer that alone produces a group of channels; changed in place."""
    for group in find_groups(model, example_input):
        rows = weight_rows(group)
        if group.reason_fixed is None and len(rows) == 1 and len(rows[0].indices) == group.size:
            _put(model, rows[0].layer, make(group.size).to(model.get_parameter(rows[0].parameter)))
    return model


def gates_behind_norms(model: nn.Module, example_input, make: Callable[[int], ChannelGate]) -> nn.Module:
    """``make(channels)`` behind every batch norm, and behind the layers of channels that meet none; changed in place."""
    gated = {name for name, module in model.named_modules() if isinstance(module, Gated)}
    for name, norm in list(model.named_modules()):
        if isinstance(norm, _BatchNorm) and name.rpartition(".")[0] not in gated:
            _put(model, name, make(norm.num_features))
    for group in find_groups(model, example_input):
        if group.reason_fixed is None and not gates_of(model, group, ChannelGate):
            for row in weight_rows(group):
                _put(model, row.layer, make(model.get_parameter(row.parameter).shape[row.dim]))
    return model


def _put(model: nn.Module, name: str, gate: Gate) -> None:
    swap(model, name, Gated(model.get_submodule(name), gate))
