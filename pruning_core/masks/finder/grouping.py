"""From labels to groups: units that one layer computes, with every row, norm entry and column that belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pruning_core.masks.finder.labels import Vector
from pruning_core.masks.finder.owners import CONVOLUTIONS, made_of
from pruning_core.masks.finder.trace import INEXACT, Line, Trace
from pruning_core.masks.groups import Group, Member
from pruning_core.models.layers.gates import ChannelGate, HardConcreteGate
from pruning_core.models.layers.index import ChannelIndex

PRODUCERS = (*CONVOLUTIONS, nn.Linear)
VECTORS = (_BatchNorm, _InstanceNorm, nn.PReLU, HardConcreteGate, ChannelGate)
Part = tuple[Line, Tensor, Tensor]
STATISTICS = ("running_mean", "running_var")


class Found(NamedTuple):
    """A group; what a trial must look at before it is believed (SHAPES, VALUES or nothing, 0); where doubts arose."""

    group: Group
    doubt: int
    places: frozenset[str]


def grouped(trace: Trace, model: nn.Module) -> list[Found]:
    """All groups of ``model``, in the order of its layers; the ones that cannot be pruned say why.

    A group holds the units of its first layer, in the order of the rows of that layer, but those that another group has.
    Where some of them must stay, these are a group of their own, "name, 3 of 16".
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    order = {name: position for position, name in enumerate(modules)}
    lines = sorted(trace.lines, key=lambda line: order[line.name.rpartition(".")[0]])
    classes = trace.labels.classes()
    met = trace.labels.met(classes)
    group_of = np.full(trace.labels.count, -1)  # class -> number of its group
    unit_of = np.zeros(trace.labels.count, dtype=int)  # class -> number of its unit in the group
    roots: list[tuple[str, Vector]] = []
    for line in sorted((one for one in lines if _is_rows(one, modules)), key=lambda line: _follows(line, modules)):
        own, first = np.unique(classes[line.labels], return_index=True)
        units = own[np.argsort(first)]
        units = units[(group_of[units] < 0) & met[units]]
        if len(units):
            group_of[units], unit_of[units] = len(roots), np.arange(len(units))
            roots.append((line.name.rpartition(".")[0], units))
    parts = _parts(lines, classes, group_of, unit_of, len(roots))
    reasons = _fixed_by_hand(trace, modules, classes) | _shared(model, modules, trace.lines, classes)
    doubts = trace.labels.doubts(classes)
    found = []
    for (name, units), part in zip(roots, parts, strict=True):
        whole = _group(name, len(units), part, modules)
        why = [reasons.get(unit) or unread for unit, unread in zip(units.tolist(), _unread(whole), strict=True)]
        free = torch.tensor([reason is None for reason in why])
        for group, here in zip(_parted(whole, free), (free, ~free), strict=True):
            if group.size:
                doubted = [doubts[unit] for unit in units[here.numpy()].tolist() if unit in doubts]
                worst, places = (
                    max((d for d, _ in doubted), default=0),
                    frozenset[str]().union(*(p for _, p in doubted)),
                )
                reason = next((reason for reason, one in zip(why, here.tolist(), strict=True) if one), None)
                reason = reason or _reason_fixed(group)
                found.append((order[name], Found(replace(group, reason_fixed=reason), worst, places)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _parted(group: Group, free: Tensor) -> tuple[Group, Group]:
    """The units that can be removed under the group's own name, and the others; either may be empty."""
    if bool(free.all()) or not bool(free.any()):
        none = Group(group.name, 0, ())
        return (group, none) if bool(free.all()) else (none, group)
    number = torch.where(free, free.cumsum(0), (~free).cumsum(0)) - 1

    def part(members: tuple[Member, ...], own: Tensor) -> tuple[Member, ...]:
        chosen = [(member, own[member.channels]) for member in members]
        return tuple(
            replace(member, indices=member.indices[here], channels=number[member.channels[here]])
            for member, here in chosen
            if bool(here.any())
        )

    rest = f"{group.name}, {int((~free).sum())} of {group.size}"

    def group_of(name: str, own: Tensor) -> Group:
        produces, normalises, consumes = (part(m, own) for m in (group.produces, group.normalises, group.consumes))
        return Group(name, int(own.sum()), produces, normalises, consumes)

    return group_of(group.name, free), group_of(rest, ~free)


def _unread(group: Group) -> list[str | None]:
    """For every unit why it has no reader; None where it has one, or where an index layer hands it on, or is alone."""
    if group.size == 1:
        return [None]
    read = torch.zeros(group.size, dtype=torch.bool)
    for member in group.consumes:
        read[member.channels] = True
    why = f"{int((~read).sum())} of them are read by no layer"
    return [None if seen else why for seen in read.tolist()]


def _parts(lines: list[Line], classes: Vector, group_of: Vector, unit_of: Vector, count: int) -> list[list[Part]]:
    """For each of ``count`` groups the indices of every line that belong to it, with their units, in the units' order."""
    parts: list[list[Part]] = [[] for _ in range(count)]
    for line in lines:
        own = classes[line.labels]
        numbers = group_of[own]
        for number in np.unique(numbers[numbers >= 0]).tolist():
            indices = np.flatnonzero(numbers == number)
            units = unit_of[own[indices]]
            by_unit = np.argsort(units, kind="stable")
            parts[number].append((line, torch.from_numpy(indices[by_unit]), torch.from_numpy(units[by_unit])))
    return parts


def _is_rows(line: Line, modules: Mapping[str, nn.Module]) -> bool:
    layer, _, leaf = line.name.rpartition(".")
    return isinstance(modules[layer], PRODUCERS) and leaf == "weight" and not line.reads


def _follows(line: Line, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the layer is depthwise: it names a group only where no other layer computes the channels."""
    module = modules[line.name.rpartition(".")[0]]
    return isinstance(module, CONVOLUTIONS) and module.groups > 1 and module.groups == module.in_channels


def _fixed_by_hand(trace: Trace, modules: Mapping[str, nn.Module], classes: Vector) -> dict[int, str]:
    """The reasons of the forward pass, and those of parameters that nobody knows how to cut or that no layer uses itself."""
    reasons = trace.labels.reasons(classes)
    for line in trace.lines:
        if (other := made_of(line.name, modules)) is not None:  # which says more than what its operators do
            reasons |= dict.fromkeys(np.unique(classes[line.labels]).tolist(), other)
        elif (reason := _unknown(line, modules, trace.positions)) is not None:
            for unit in np.unique(classes[line.labels]).tolist():
                reasons.setdefault(unit, reason)
    return reasons


def _unknown(line: Line, modules: Mapping[str, nn.Module], called: Mapping[str, int]) -> str | None:
    """Why the entries of a tensor cannot be cut, whatever happens to it in the forward pass; None where they can."""
    layer, _, leaf = line.name.rpartition(".")
    module = modules[layer]
    if isinstance(module, PRODUCERS) and leaf in ("weight", "bias"):
        return None if layer in called else f"the {leaf} of {layer!r} is used outside of its layer"
    if isinstance(module, VECTORS) and leaf in ("weight", "bias", "log_alpha", *STATISTICS):
        return None
    if isinstance(module, ChannelIndex):
        return None
    if isinstance(module, nn.Embedding):
        return None if line.dim else f"they are rows of the table of {type(module).__name__} {layer!r}"
    if isinstance(module, nn.ParameterList | nn.ParameterDict):
        return None
    if type(module).__module__.startswith("torch.nn.modules"):
        return f"they go through {type(module).__name__} {layer!r}, which has no rule"
    if leaf in module._non_persistent_buffers_set:
        return f"they are used together with {line.name!r}, a buffer that is not saved with the network"
    return None


def _shared(model: nn.Module, modules: Mapping[str, nn.Module], lines: list[Line], classes: Vector) -> dict[int, str]:
    """Reasons for the parameters that two layers share: cut in one, they would be whole in the other."""
    first: dict[int, str] = {}
    shared: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        other = first.setdefault(id(parameter), name)
        if modules[name.rpartition(".")[0]] is not modules[other.rpartition(".")[0]]:
            shared[other] = f"{name!r} and {other!r} are one shared parameter"
    found: dict[int, str] = {}
    for line in lines:
        if line.name in shared:
            found |= dict.fromkeys(classes[line.labels].tolist(), shared[line.name])
    return found


def _group(name: str, size: int, parts: list[Part], modules: Mapping[str, nn.Module]) -> Group:
    produces: list[Member] = []
    normalises: list[Member] = []
    consumes: list[Member] = []
    known = {line.name for line, _, _ in parts}
    for line, indices, channels in parts:
        layer, _, leaf = line.name.rpartition(".")
        member = Member(line.name, line.dim, indices, channels)
        if isinstance(modules[layer], VECTORS):
            # A running mean is cut with the scale, and stands for it where there is none.
            if leaf == "running_mean" and f"{layer}.weight" not in known:
                normalises.append(replace(member, is_buffer=True))
            elif leaf not in STATISTICS:
                normalises.append(member)
        elif isinstance(modules[layer], (*PRODUCERS, ChannelIndex)):
            member = replace(member, is_buffer=isinstance(modules[layer], ChannelIndex))
            (consumes if line.reads else produces).append(member)
        else:  # a tensor of somebody's own, or the columns of an embedding, which meet the channels one by one
            normalises.append(replace(member, is_buffer=leaf in modules[layer]._buffers))
    return Group(name, size, tuple(produces), tuple(normalises), tuple(consumes))


def _reason_fixed(group: Group) -> str | None:
    if group.size == 1:
        return "they can only be removed all together"
    if any(m.is_buffer for m in group.produces) and any(m.is_buffer for m in group.consumes):
        # What arrives through an index layer has no weight to mask, and would travel on through the next one.
        return "they come and go through index layers, where nothing can be masked"
    return None


def with_ways_out(groups: list[Group]) -> list[Group]:
    """The groups, where those that a norm over all channels fixes say which others can be pruned."""
    free = [group.name for group in groups if group.reason_fixed is None]
    names = ", ".join(map(repr, free[:2])) + (f" and {len(free) - 2} others" if len(free) > 2 else "")
    way_out = f"; it leaves the channels of {names} free" if free else "; no other channels here are free"
    return [
        replace(g, reason_fixed=g.reason_fixed + way_out) if g.reason_fixed and g.reason_fixed.endswith(INEXACT) else g
        for g in groups
    ]
