"""The layers that read channels, and how sensitive their outputs are to each channel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pruning_core.masks.groups import Member
from pruning_core.methods.base import View
from pruning_core.methods.shared.draws import coefficient
from pruning_core.methods.shared.halves import layer_sensitivities
from pruning_core.methods.shared.reading import inputs_of
from pruning_core.methods.shared.sensitivities import LayerSensitivities


class Reader(NamedTuple):
    """A layer that reads channels: sensitivities of its units (units,), a_l, and which unit each channel is, by group."""

    scores: Tensor
    coefficient: float
    unit_of: dict[str, Tensor]


def readers_of(view: View, constant: float, delta: float, kernel: str) -> dict[str, Reader]:
    """Every layer that reads prunable channels, by name; C, delta and what ``sensitivity`` makes of kernel positions."""
    members: dict[str, list[tuple[str, Member]]] = {}
    for name, group in view.sites.groups.items():
        for member in group.consumes:
            if not member.is_buffer:
                members.setdefault(member.layer, []).append((name, member))
    found = layer_sensitivities(view, members, "max", kernel)
    return {
        layer: _reader(view, layer, members[layer], sensitive, constant, delta) for layer, sensitive in found.items()
    }


def _reader(
    view: View,
    layer: str,
    members: list[tuple[str, Member]],
    sensitive: LayerSensitivities,
    constant: float,
    delta: float,
) -> Reader:
    module = view.model.get_submodule(layer)
    units = torch.arange(len(sensitive.channel))  # an input that belongs to no group is a unit of its own
    unit_of, free = {}, len(units)
    for name, member in members:
        channel = inputs_of(module, member)
        unit_of[name] = free + torch.arange(view.sites.groups[name].size)
        units = torch.where(channel >= 0, free + channel.clamp(min=0), units)
        free += view.sites.groups[name].size
    scores = torch.zeros(free, dtype=torch.float64)
    scores.scatter_reduce_(0, units, sensitive.channel.double().cpu(), "amax")
    window = sensitive.weight[0, 0].numel() if sensitive.weight.dim() == 4 else 1
    # A linear layer behind a flatten reads several positions of a channel, as a kernel over the whole map would.
    window *= max(int(torch.bincount(units).max()) // getattr(module, "groups", 1), 1)
    return Reader(scores, coefficient(float(scores.sum()), sensitive.positions, window, constant, delta), unit_of)
