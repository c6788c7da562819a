"""Channel groups as values: which slices of which parameters live and die together, and how to cut them out.

A channel is a unit of scores and budgets. :func:`expand` turns a choice of channels into masks per parameter (rows,
biases, norm vectors and the consumers' columns), :func:`remove` turns such masks into a smaller network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.masks import Masks
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.storage import set_sizes


@dataclass(frozen=True)
class Member:
    """Where a group's channels sit in one tensor: entry ``indices[i]`` along ``dim`` belongs to ``channels[i]``.

    ``parameter`` is the name of a parameter, or of a buffer (the ``index`` of a ChannelIndex). One channel may own
    several entries: the columns behind a flatten, or one channel of every group of a grouped convolution.
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

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """Indices of channel c along ``dim``, for every c."""
        return tuple(self.indices[self.channels == c] for c in range(int(self.channels.max()) + 1))

    def per_channel(self, per_index: Tensor, size: int) -> Tensor:
        """Sum a vector over the entries along ``dim`` into one value a channel, shape (size,)."""
        picked = per_index[self.indices.to(per_index.device)]
        return picked.new_zeros(size).index_add_(0, self.channels.to(per_index.device), picked)


@dataclass(frozen=True)
class Group:
    """Channels that must be pruned together, named after the first layer that produces them.

    ``produces``: rows and biases of the layers that compute the channels; ``normalises``: vectors of batch norms and
    gates; ``consumes``: columns of the layers that read them. ``reason_fixed`` says why the group cannot be pruned.
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

    @property
    def passes_an_index(self) -> bool:
        """Whether a ChannelIndex reads these channels: it has no column that could be masked."""
        return any(member.is_buffer for member in self.consumes)

    def alive(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Bool vector (size,): False for channels that can be cut out without any change of the outputs.

        A channel is dead when every column that reads it is masked; where an index layer hands it on, when the rows,
        the biases and the norm entries that make it are masked as well.
        """
        judges = [m for m in (self.members if self.passes_an_index else self.consumes) if not m.is_buffer]
        masked = [member for member in judges if member.parameter in masks]
        if not masked or len(masked) < len(judges):
            return torch.ones(self.size, dtype=torch.bool)
        counts = torch.zeros(self.size, dtype=torch.long)
        for member in masked:
            mask = masks[member.parameter]
            counts += member.per_channel(any_alive(mask, member.dim).long(), self.size)
        return counts > 0


@dataclass(frozen=True)
class Sites:
    """What a method may prune: single weights of the parameters ``weights``, or channels of ``groups``.

    Fractions "of weights" and "of macs" refer to ``weights``. ``positions`` says how many multiply-accumulates one
    weight of a parameter costs; None when no example was given. ``shapes`` holds the shape of every parameter of the
    network, ``excluded`` the layers and groups that cannot be pruned, or are out of scope, and why.
    """

    shapes: Mapping[str, torch.Size]
    weights: tuple[str, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)
    positions: Mapping[str, int] | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)

    def score_shapes(self, channels: bool) -> dict[str, torch.Size]:
        """Shapes of the scores, per site: (channels,) for groups, the parameter's own for single weights."""
        if channels:
            return {name: torch.Size([group.size]) for name, group in self.groups.items()}
        return {name: self.shapes[name] for name in self.weights}


def any_alive(mask: Tensor, dim: int) -> Tensor:
    """For every index along ``dim`` whether anything is alive there; numpy does this many times faster than torch."""
    array: np.ndarray = mask.cpu().numpy()
    if dim == 1:
        array = np.any(array, axis=0)
    return torch.from_numpy(array.reshape(len(array), -1).any(1))


def expand(keep: Mapping[str, Tensor], groups: Mapping[str, Group], shapes: Mapping[str, torch.Size]) -> Masks:
    """Masks of every parameter that the channels in ``keep`` (group name -> bool (size,)) touch.

    ``shapes`` gives the shape of every parameter. Masking the consumers' columns too makes masked and removed
    channels equal for any activation: a zeroed producer alone does not silence a sigmoid or a shift behind it.
    """
    masks: dict[str, Tensor] = {}
    for name, alive in keep.items():
        group = groups[name]
        if alive.shape != (group.size,) or alive.dtype != torch.bool:
            raise BadInput(f"group {name!r} takes a bool vector of {group.size} channels, not {tuple(alive.shape)}.")
        if bool(alive.all()):
            continue
        for member in group.members:
            if member.is_buffer:
                continue
            shape = shapes[member.parameter]
            mask = masks.setdefault(member.parameter, torch.ones(shape, dtype=torch.bool))
            dead = member.indices[~alive[member.channels]]
            mask.index_fill_(member.dim, dead, False)
    return Masks(masks)


class Kept:
    """What is left of every tensor after a removal: name -> {dim: kept indices}.

    The same slices apply to weights, masks, snapshots for rewinding, momentum and moments of the optimizer.
    """

    def __init__(self, slices: Mapping[str, Mapping[int, Tensor]]):
        self.slices = {name: dict(dims) for name, dims in slices.items()}

    def slice(self, name: str, tensor: Tensor) -> Tensor:
        """The kept part of ``tensor``, which has the shape that parameter or buffer ``name`` had before the removal."""
        for dim, indices in self.slices.get(name, {}).items():
            if tensor.dim() > dim:
                tensor = tensor.index_select(dim, indices.to(tensor.device))
        return tensor.contiguous()

    def masks(self, masks: Mapping[str, Tensor]) -> Masks:
        """The masks of the smaller network; entries that are alive everywhere are dropped."""
        sliced = {name: self.slice(name, mask) for name, mask in masks.items()}
        return Masks({name: mask for name, mask in sliced.items() if name not in self.slices or not mask.all()})


def remove(model: nn.Module, masks: Mapping[str, Tensor], groups: Iterable[Group]) -> Kept:
    """Cut the dead channels of ``groups`` out of ``model``, in place; what else is masked stays as zeros.

    Returns the slices, to carry optimizer state and snapshots along. Raises BadInput where a group would be empty.
    """
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    dropped: dict[str, dict[int, list[Tensor]]] = {}
    renumber: dict[str, list[Tensor]] = {}
    for group in groups:
        alive = group.alive(masks)
        if bool(alive.all()):
            continue
        if not bool(alive.any()):
            raise BadInput(f"group {group.name!r} has no channel left; keep at least one.")
        for member in group.members:
            dead = member.indices[~alive[member.channels]]
            if member.is_buffer and any(member is reader for reader in group.consumes):
                renumber.setdefault(member.parameter, []).append(dead)
            else:
                dropped.setdefault(member.parameter, {}).setdefault(member.dim, []).append(dead)

    slices: dict[str, dict[int, Tensor]] = {}
    for name, dims in dropped.items():
        shape = (parameters[name] if name in parameters else buffers[name]).shape
        slices[name] = {dim: _complement(torch.cat(dead), shape[dim]) for dim, dead in dims.items()}
    kept = Kept(slices)
    owners = sorted({name.rpartition(".")[0] for name in {*slices, *renumber}})
    with torch.no_grad():
        for owner in owners:
            _shrink_module(model.get_submodule(owner), owner, kept, renumber.get(f"{owner}.index", []))
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            if int(torch.count_nonzero(mask)) < parameter.numel():  # dead weights beside those that were cut out
                parameter.masked_fill_(~kept.slice(name, mask).to(parameter.device), 0)
    return kept


def _complement(dead: Tensor, size: int) -> Tensor:
    alive = torch.ones(size, dtype=torch.bool)
    alive[dead] = False
    return alive.nonzero().flatten()


def _shrink_module(module: nn.Module, owner: str, kept: Kept, index_dead: list[Tensor]) -> None:
    if isinstance(module, ChannelIndex):
        index = kept.slice(f"{owner}.index", module.index.cpu())
        if index_dead:
            dead = torch.cat(index_dead)
            renumbered = index - (dead[None, :] < index[:, None]).sum(1)
            index = torch.where(torch.isin(index, dead), torch.full_like(index, -1), renumbered)
        module.index = index.to(module.index.device)
        return
    # The vectors of a norm share the slices of its scale, or of its running mean where it has no scale.
    vector = next((kept.slices[n] for n in (f"{owner}.weight", f"{owner}.running_mean") if n in kept.slices), {})
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        full = f"{owner}.{name}"
        if name in ("running_mean", "running_var") and full not in kept.slices and vector:
            kept.slices[full] = vector
        if full not in kept.slices:
            continue
        sliced = kept.slice(full, tensor.detach())
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, nn.Parameter(sliced, requires_grad=tensor.requires_grad))
        else:
            setattr(module, name, sliced)
    set_sizes(module)
