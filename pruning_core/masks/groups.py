"""Channel groups as values: which slices of which parameters live and die together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pruning_core.checks import checked
from pruning_core.errors import BadInput, known_name
from pruning_core.masks.masks import Masks


@dataclass(frozen=True)
class Member:
    """Where a group's channels sit in one tensor: entry ``indices[i]`` along ``dim`` belongs to ``channels[i]``.

    ``parameter`` is the name of a parameter, or of a buffer (the ``index`` of a ChannelIndex). One channel may own
    several entries: the columns behind a flatten, or one channel of every group of a grouped convolution.

    >>> from torch import nn
    >>> import pruning_core as pc
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> hidden = pc.find_groups(network, torch.zeros(1, 4))[0]
    >>> [(member.parameter, member.dim) for member in (*hidden.produces, *hidden.consumes)]
    [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)]
    """

    parameter: str
    dim: int
    indices: Tensor
    channels: Tensor
    is_buffer: bool = False

    @property
    def layer(self) -> str:
        """Name of the module that owns the parameter."""
        return self.parameter.rpartition(".")[0]

    def per_channel(self, per_index: Tensor, size: int) -> Tensor:
        """Sum a vector over the entries along ``dim`` into one value a channel, shape (size,)."""
        picked = per_index[self.indices.to(per_index.device)]
        return picked.new_zeros(size).index_add_(0, self.channels.to(per_index.device), picked)


@dataclass(frozen=True)
class Group:
    """Channels that must be pruned together, named after the first layer that produces them.

    ``produces``: rows and biases of the layers that compute the channels; ``normalises``: vectors of batch norms and
    gates; ``consumes``: columns of the layers that read them. ``reason_fixed`` says why the group cannot be pruned.

    >>> from torch import nn
    >>> import pruning_core as pc
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> (hidden, outputs) = pc.find_groups(network, torch.zeros(1, 4))
    >>> hidden.name, hidden.size, outputs.reason_fixed
    ('0', 3, 'they are outputs of the network')
    """

    name: str
    size: int
    produces: tuple[Member, ...]
    normalises: tuple[Member, ...] = ()
    consumes: tuple[Member, ...] = ()
    reason_fixed: str | None = None

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """All members that are parameters or index layers."""
        return (*self.produces, *self.normalises, *self.consumes)

    def alive(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Bool vector (size,): False for channels that can be cut out without any change of the outputs.

        A channel is dead when every column that reads it is masked; where an index layer hands it on, when the rows,
        the biases and the norm entries that make it are masked as well.
        """
        passes_an_index = any(member.is_buffer for member in self.consumes)  # which has no column to mask
        judges = [m for m in (self.members if passes_an_index else self.consumes) if not m.is_buffer]
        masked = [member for member in judges if member.parameter in masks]
        if not masked or len(masked) < len(judges):
            return torch.ones(self.size, dtype=torch.bool)
        counts = torch.zeros(self.size, dtype=torch.long)
        for member in masked:
            mask = masks[member.parameter]
            counts += member.per_channel(any_alive(mask, member.dim).long(), self.size)
        return counts > 0


def any_alive(mask: Tensor, dim: int) -> Tensor:
    """For every index along ``dim`` whether anything is alive there; numpy does this many times faster than torch."""
    array: np.ndarray = mask.cpu().numpy()
    if dim == 1:
        array = np.any(array, axis=0)
    return torch.from_numpy(array.reshape(len(array), -1).any(1))


@checked
def expand(keep: Mapping[str, Tensor], groups: Mapping[str, Group], shapes: Mapping[str, torch.Size]) -> Masks:
    """Masks of every parameter that the channels in ``keep`` (group name -> bool (size,)) touch.

    ``shapes`` gives the shape of every parameter. Masking the consumers' columns too makes masked and removed
    channels equal for any activation: a zeroed producer alone does not silence a sigmoid or a shift behind it.

    >>> from torch import nn
    >>> import pruning_core as pc
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> hidden = pc.find_groups(network, torch.zeros(1, 4))[0]
    >>> shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    >>> masks = expand({"0": torch.tensor([True, False, True])}, {"0": hidden}, shapes)
    >>> masks["0.bias"], masks["2.weight"]
    (tensor([ True, False,  True]), tensor([[ True, False,  True],
            [ True, False,  True]]))
    """
    lines: dict[str, dict[int, np.ndarray]] = {}
    for name, alive in keep.items():
        group = groups[known_name("group", name, groups)]
        if alive.shape != (group.size,) or alive.dtype != torch.bool:
            raise BadInput(f"group {name!r} takes a bool vector of {group.size} channels, not {tuple(alive.shape)}.")
        if bool(alive.all()):
            continue
        for member in group.members:
            if not member.is_buffer:
                of_parameter = lines.setdefault(member.parameter, {})
                line = of_parameter.setdefault(member.dim, np.ones(shapes[member.parameter][member.dim], dtype=bool))
                line[member.indices[~alive[member.channels]].numpy()] = False
    return Masks({name: _crossed(of_dim, shapes[name]) for name, of_dim in lines.items()})


def _crossed(lines: Mapping[int, np.ndarray], shape: torch.Size) -> Tensor:
    """The mask of this shape that is alive where the line of every dim is; numpy crosses them many times faster than torch."""
    mask = np.ones([1] * len(shape), dtype=bool)
    for dim, line in lines.items():
        mask = mask & line.reshape([-1 if i == dim else 1 for i in range(len(shape))])
    return torch.from_numpy(mask if mask.shape == shape else np.broadcast_to(mask, shape).copy())
