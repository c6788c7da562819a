"""What a layer reads: which channel each of its inputs belongs to, and what it sees at every output position."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.masks import Member


def inputs_of(reader: Any, member: Member) -> Tensor:
    """Which channel of the group each input of the reading layer belongs to, -1 for none: (inputs,)."""
    inputs = reader.in_features if isinstance(reader, nn.Linear) else reader.in_channels
    channel_of = torch.full((inputs,), -1)
    channel_of[member.indices] = member.channels
    groups = getattr(reader, "groups", 1)
    if groups > 1:  # the same columns of the weight serve every group of inputs
        channel_of = channel_of[: inputs // groups].repeat(groups)
    return channel_of


def unfolded(layer: nn.Module, points: Tensor) -> Tensor:
    """What a Linear, Conv1d or Conv2d layer sees at every output position: (N, groups, inputs of a filter, P)."""
    if isinstance(layer, nn.Linear):
        return points.flatten(1, -2).transpose(1, 2)[:, None] if points.dim() > 2 else points[:, None, :, None]
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    padding: Any = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        points, padding = F.pad(points, layer._reversed_padding_repeated_twice, mode=mode), 0
    geometry: list[Any] = [layer.kernel_size, layer.dilation, padding, layer.stride]
    if isinstance(layer, nn.Conv1d):  # an image of height 1; a number is a padding that has been carried out
        points = points.unsqueeze(2)
        geometry = [(0 if i == 2 else 1, *part) if isinstance(part, tuple) else part for i, part in enumerate(geometry)]
    columns = F.unfold(points, *geometry)
    return columns.view(len(points), layer.groups, -1, columns.shape[-1])


def largest(values: Tensor, count: int) -> Tensor:
    """Indices of the largest values, the lower index first among equals."""
    return torch.sort(values, descending=True, stable=True).indices[:count]
