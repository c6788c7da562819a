"""Channels cut out for good: weights, snapshots, averages and moments of optimizers alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.masks.groups import Group, Member
from pruning_core.masks.masks import Masks
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.storage import set_sizes


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

    def spread(self, name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
        """The other way round: ``tensor`` in a tensor of the ``shape`` before the removal, zeros where entries were cut."""
        for dim, indices in self.slices.get(name, {}).items():
            wider = tensor.new_zeros([*tensor.shape[:dim], shape[dim], *tensor.shape[dim + 1 :]])
            tensor = wider.index_copy_(dim, indices.to(tensor.device), tensor)
        return tensor

    def masks(self, masks: Mapping[str, Tensor]) -> Masks:
        """The masks of the smaller network; entries that are alive everywhere are dropped."""
        sliced = {name: self.slice(name, mask) for name, mask in masks.items()}
        return Masks({name: mask for name, mask in sliced.items() if name not in self.slices or not mask.all()})


def remove(model: nn.Module, masks: Mapping[str, Tensor], groups: Iterable[Group]) -> Kept:
    """Cut the dead channels of ``groups`` out of ``model``, in place; what else is masked stays as zeros.

    Returns the slices, to carry optimizer state and snapshots along. Raises BadInput where a group would be empty.
    """
    groups = list(groups)
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    alive = {group.name: group.alive(masks) for group in groups}
    for group in groups:
        if not bool(alive[group.name].any()):
            raise BadInput(f"group {group.name!r} has no channel left; keep at least one.")
    dropped, renumber = _dead_entries(groups, alive)
    slices: dict[str, dict[int, Tensor]] = {}
    for name, dims in dropped.items():
        shape = (parameters[name] if name in parameters else buffers[name]).shape
        slices[name] = {
            dim: torch.ones(shape[dim], dtype=torch.bool).index_fill(0, dead, False).nonzero().flatten()
            for dim, dead in dims.items()
        }
    kept = Kept(slices)
    owners = sorted({name.rpartition(".")[0] for name in {*slices, *renumber}})
    with torch.no_grad():
        for owner in owners:
            _shrink_module(model.get_submodule(owner), owner, kept, renumber.get(f"{owner}.index"))
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            if int(torch.count_nonzero(mask)) < parameter.numel():  # dead weights beside those that were cut out
                parameter.masked_fill_(~kept.slice(name, mask).to(parameter.device), 0)
    return kept


def smaller_groups(groups: Iterable[Group], masks: Mapping[str, Tensor]) -> list[Group]:
    """``groups`` with the channels and entries that they have in the network that :func:`remove` leaves of theirs."""
    groups = list(groups)
    alive = {group.name: group.alive(masks) for group in groups}
    dropped, renumber = _dead_entries(groups, alive)

    def smaller(member: Member, living: Tensor, reads: bool) -> Member:
        left = living[member.channels]
        indices, channels = member.indices[left], member.channels[left]
        if member.is_buffer and reads:
            dead = renumber.get(member.parameter)
        else:
            dead = dropped.get(member.parameter, {}).get(member.dim)
        indices = indices if dead is None else _without(dead, indices)
        return replace(member, indices=indices, channels=living.cumsum(0)[channels] - 1)

    return [
        replace(
            group,
            size=int(alive[group.name].sum()),
            produces=tuple(smaller(member, alive[group.name], False) for member in group.produces),
            normalises=tuple(smaller(member, alive[group.name], False) for member in group.normalises),
            consumes=tuple(smaller(member, alive[group.name], True) for member in group.consumes),
        )
        for group in groups
    ]


def _dead_entries(
    groups: Iterable[Group], alive: Mapping[str, Tensor]
) -> tuple[dict[str, dict[int, Tensor]], dict[str, Tensor]]:
    """The entries of dead channels, in ascending order: name -> {dim: indices} of the tensors that lose them, and
    name -> indices of the index layers that no longer find them among their inputs."""
    dropped: dict[str, dict[int, list[Tensor]]] = {}
    renumber: dict[str, list[Tensor]] = {}
    for group in groups:
        living = alive[group.name]
        if bool(living.all()):
            continue
        for member in group.members:
            dead = member.indices[~living[member.channels]]
            if member.is_buffer and any(member is reader for reader in group.consumes):
                renumber.setdefault(member.parameter, []).append(dead)
            else:
                dropped.setdefault(member.parameter, {}).setdefault(member.dim, []).append(dead)
    joined = {name: {dim: torch.cat(dead).unique() for dim, dead in dims.items()} for name, dims in dropped.items()}
    return joined, {name: torch.cat(dead).unique() for name, dead in renumber.items()}


def _without(dead: Tensor, indices: Tensor) -> Tensor:
    """The numbers of the entries ``indices`` once the ``dead`` ones, in ascending order, are cut out."""
    return indices - torch.searchsorted(dead, indices)


def _shrink_module(module: nn.Module, owner: str, kept: Kept, dead: Tensor | None) -> None:
    if isinstance(module, ChannelIndex):
        index = kept.slice(f"{owner}.index", module.index.cpu())
        if dead is not None:
            renumbered = _without(dead, index)
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
