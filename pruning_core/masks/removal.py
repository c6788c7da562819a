"""Channels cut out for good: weights, snapshots, averages and moments of optimizers alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import checked
from pruning_core.errors import BadInput, known_name
from pruning_core.masks.groups import Group, Member
from pruning_core.masks.masks import Masks, alive_everywhere, count_alive
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.storage import set_sizes


class Kept:
    """What is left of every tensor after a removal, name -> {dim: kept indices}, and of the channels of every group.

    The same slices apply to weights, masks, snapshots for rewinding, momentum and moments of the optimizer. ``unread`` are
    inputs, in ascending order, that index layers do not find any more.
    """

    def __init__(
        self, slices: Mapping[str, Mapping[int, Tensor]], channels: Mapping[str, Tensor], unread: Mapping[str, Tensor]
    ):
        self.slices = {name: dict(dims) for name, dims in slices.items()}
        self.channels, self.unread = channels, unread

    def slice(self, name: str, tensor: Tensor) -> Tensor:
        """The kept part of ``tensor``, which has the shape that parameter or buffer ``name`` had before the removal."""
        if tensor.dtype == torch.bool and not tensor.is_cuda:
            return _slice_of_mask(tensor, self.slices.get(name, {}))
        layout = _layout(tensor)
        for dim, indices in self.slices.get(name, {}).items():
            if tensor.dim() > dim:
                tensor = tensor.index_select(dim, indices.to(tensor.device))
        return tensor.contiguous(memory_format=layout)

    def spread(self, name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
        """The other way round: ``tensor`` in a tensor of the ``shape`` before the removal, zeros where entries were cut."""
        for dim, indices in self.slices.get(name, {}).items():
            wider = tensor.new_zeros([*tensor.shape[:dim], shape[dim], *tensor.shape[dim + 1 :]])
            tensor = wider.index_copy_(dim, indices.to(tensor.device), tensor)
        return tensor

    def group(self, group: Group) -> Group:
        """``group``, one of those whose channels were cut, in the smaller network."""
        alive = self.channels[group.name]
        number = alive.cumsum(0) - 1

        def member(one: Member, reads: bool = False) -> Member:
            left = alive[one.channels]
            indices = one.indices[left]
            if one.is_buffer and reads:
                indices = _renumbered(indices, self.unread.get(one.parameter))
            elif one.dim in (dims := self.slices.get(one.parameter, {})):
                indices = torch.searchsorted(dims[one.dim], indices)
            return replace(one, indices=indices, channels=number[one.channels[left]])

        return replace(
            group,
            size=int(alive.sum()),
            produces=tuple(map(member, group.produces)),
            normalises=tuple(map(member, group.normalises)),
            consumes=tuple(member(one, reads=True) for one in group.consumes),
        )

    def masks(self, masks: Mapping[str, Tensor]) -> Masks:
        """The masks of the smaller network; entries that are alive everywhere are dropped."""
        sliced = {name: self.slice(name, mask) for name, mask in masks.items()}
        return Masks(
            {name: mask for name, mask in sliced.items() if name not in self.slices or not alive_everywhere(mask)}
        )


@checked
def remove(model: nn.Module, masks: Mapping[str, Tensor], groups: Iterable[Group]) -> Kept:
    """Cut the dead channels of ``groups`` out of ``model``, in place; what else is masked stays as zeros.

    Returns the slices, to carry optimizer state and snapshots along. Raises BadInput where a group would be empty.

    >>> import pruning_core as pc
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> hidden = pc.find_groups(network, torch.zeros(1, 4))[0]
    >>> shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    >>> masks = pc.expand({"0": torch.tensor([True, False, True])}, {"0": hidden}, shapes)
    >>> kept = remove(network, masks, [hidden])
    >>> network
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=2, bias=True)
    )
    """
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    every = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        known_name("parameter", name, every)
        if mask.dtype != torch.bool or mask.shape != every[name].shape:
            wanted, given = tuple(every[name].shape), f"{mask.dtype} {tuple(mask.shape)}"
            raise BadInput(f"the mask of {name!r} must be a bool tensor of shape {wanted}, not {given}.")
    dropped: dict[str, dict[int, list[Tensor]]] = {}
    unread: dict[str, list[Tensor]] = {}
    channels: dict[str, Tensor] = {}
    for group in groups:
        for member in group.members:
            tensor = every.get(member.parameter, buffers.get(member.parameter))
            if tensor is None or member.dim >= tensor.dim() or int(member.indices.max()) >= tensor.shape[member.dim]:
                raise BadInput(f"group {group.name!r} is of another network: {member.parameter!r} is not as it says.")
        alive = channels[group.name] = group.alive(masks)
        if bool(alive.all()):
            continue
        if not bool(alive.any()):
            raise BadInput(f"group {group.name!r} has no channel left; keep at least one.")
        for member in group.members:
            dead = member.indices[~alive[member.channels]]
            if member.is_buffer and any(member is reader for reader in group.consumes):
                unread.setdefault(member.parameter, []).append(dead)
            else:
                dropped.setdefault(member.parameter, {}).setdefault(member.dim, []).append(dead)

    slices: dict[str, dict[int, Tensor]] = {}
    for name, dims in dropped.items():
        shape = (parameters[name] if name in parameters else buffers[name]).shape
        slices[name] = {dim: _others(torch.cat(dead), shape[dim]) for dim, dead in dims.items()}
    kept = Kept(slices, channels, {name: torch.cat(dead).unique() for name, dead in unread.items()})
    owners = sorted({name.rpartition(".")[0] for name in {*slices, *unread}})
    tied = [(name, other) for name, other in _tied(parameters, every) if other in slices]
    with torch.no_grad():
        for owner in owners:
            _shrink_module(model.get_submodule(owner), owner, kept)
        for name, other in tied:
            owner, _, leaf = name.rpartition(".")
            setattr(module := model.get_submodule(owner), leaf, model.get_parameter(other))
            set_sizes(module)
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            if count_alive(mask) < parameter.numel():  # dead weights beside those that were cut out
                parameter.masked_fill_(~kept.slice(name, mask).to(parameter.device), 0)
    return kept


def _others(dead: Tensor, size: int) -> Tensor:
    """The indices below ``size`` that are not in ``dead``, in ascending order."""
    alive = np.ones(size, dtype=bool)
    alive[dead.numpy()] = False
    return torch.from_numpy(np.flatnonzero(alive))


def _tied(parameters: Mapping[str, Tensor], every: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """(second name, first name) of every parameter that has two."""
    first = {id(parameter): name for name, parameter in parameters.items()}
    return [(name, first[id(parameter)]) for name, parameter in every.items() if name not in parameters]


def _slice_of_mask(mask: Tensor, slices: Mapping[int, Tensor]) -> Tensor:
    """The kept part of a mask; numpy picks single bytes faster than torch."""
    array = mask.numpy()
    for dim, indices in slices.items():
        if array.ndim > dim:
            array = array.take(indices.numpy(), dim)
    return torch.from_numpy(array) if slices else mask


def _layout(tensor: Tensor) -> torch.memory_format:
    """``channels_last`` for filters that are laid out so and not the plain way too, else the plain way."""
    turned = (
        tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    return torch.channels_last if turned else torch.contiguous_format


def _renumbered(indices: Tensor, cut: Tensor | None) -> Tensor:
    """The numbers that entries have once those of ``cut``, in ascending order, are gone."""
    return indices if cut is None else indices - torch.searchsorted(cut, indices)


def _shrink_module(module: nn.Module, owner: str, kept: Kept) -> None:
    if isinstance(module, ChannelIndex):
        index = kept.slice(f"{owner}.index", module.index.cpu())
        if (unread := kept.unread.get(f"{owner}.index")) is not None:
            index = torch.where(torch.isin(index, unread), -1, _renumbered(index, unread))
        module.index = index.to(module.index.device)
        return
    # The vectors of a norm share the slices of its scale, or of its running mean where it has no scale.
    vector = next((kept.slices[n] for n in (f"{owner}.weight", f"{owner}.running_mean") if n in kept.slices), {})
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        full = f"{owner}.{name}" if owner else name
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
