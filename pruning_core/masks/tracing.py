"""Finding the channel groups of a network. The search is torch-pruning's; what it finds becomes our own values.

torch-pruning changes modes, needs gradients and can hang, so it works on a deep copy and under a time limit. Whatever
cannot be cut out exactly is returned as a group with a reason, never silently left out.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from pruning_core.checks import checked
from pruning_core.errors import BadInput, Unprunable
from pruning_core.masks.groups import Group, Member
from pruning_core.masks.time_limit import OutOfTime, limited
from pruning_core.masks.traceable import gate_finder, make_traceable
from pruning_core.models.calls import tensors_of
from pruning_core.models.cost import counting_positions, values_cost_little, weightless_copy
from pruning_core.models.layers.attention import PrunableAttention
from pruning_core.models.layers.gates import ChannelGate, HardConcreteGate
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.modes import own_random_numbers

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRODUCERS = (*CONVOLUTIONS, nn.Linear)
VECTORS = (_BatchNorm, _InstanceNorm, nn.PReLU, HardConcreteGate, ChannelGate)


@checked
def find_groups(model: nn.Module, example_input, time_limit: float = 60.0) -> list[Group]:
    """All channel groups of ``model``, in the order of its layers; the ones that cannot be pruned say why.

    ``example_input`` is a tensor (N, ...) or a tuple of the arguments of ``forward``; a batch of one is enough.
    Raises Unprunable when the network cannot be traced, or not within ``time_limit`` seconds.
    """
    return groups_and_positions(model, example_input, time_limit)[0]


def groups_and_positions(
    model: nn.Module, example_input, time_limit: float = 60.0
) -> tuple[list[Group], dict[str, int]]:
    """The groups, and the output positions of every layer for one sample, from one forward pass."""
    from torch_pruning import DependencyGraph, pruner  # before the clock starts: an import cut off stays broken

    finder = gate_finder(pruner.function.BasePruningFunc)

    _refuse_shared_weights(model)
    # A tuple: a bare tensor would be unpacked along its batch and tried sample by sample, and counted twice.
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    try:
        with limited(time_limit), own_random_numbers(model):
            found = None
            # Values fail where the example lies elsewhere than the network, shapes where a forward pass looks at values.
            for values in (True, False) if values_cost_little(model, arguments) else (False,):
                with contextlib.suppress(Exception):
                    twin = copy.deepcopy(model) if values else weightless_copy(model)
                    found = _search(DependencyGraph(), finder, twin, arguments if values else _to(arguments, "meta"))
                    break
            entries, positions = found or _search(DependencyGraph(), finder, copy.deepcopy(model), arguments)
    except OutOfTime:
        raise Unprunable(
            f"the channel groups of {type(model).__name__} were not found within {time_limit:g} s; prune weights instead."
        ) from None
    except Exception as error:
        _refuse_wrong_example(model, arguments)
        raise Unprunable(
            f"{type(model).__name__} cannot be traced for channel groups ({type(error).__name__}: {_short(error)}); "
            "prune weights instead, or check that example_input fits the network."
        ) from error
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    order = {name: position for position, name in enumerate(dict(model.named_modules()))}
    groups = [_build(members, problems, size, model, tensors, order) for members, problems, size in entries]
    groups.sort(key=lambda group: order[group.name])
    return groups, positions


def _search(graph: Any, finder: Any, twin: nn.Module, arguments: tuple):
    """What torch-pruning finds in ``twin``, a copy that it may change: (members, problems, channels) of every group."""
    make_traceable(twin, arguments)
    names = {module: name for name, module in twin.named_modules()}
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        finders = dict.fromkeys((HardConcreteGate, ChannelGate), finder)
        with counting_positions(twin) as positions:
            graph.build_dependency(twin, arguments, output_transform=tensors_of, customized_pruners=finders)
        found = [
            [(names.get(item.dep.target.module), item.dep, item.idxs, item.root_idxs) for item in group]
            for group in graph.get_all_groups(root_module_types=list(PRODUCERS))
        ]
        entries = [_entries(group, graph.is_out_channel_pruning_fn, twin) for group in found]
        return entries, {name: count // len(arguments[0]) for name, count in positions.items()}


def _to(argument: Any, device: str) -> Any:
    if isinstance(argument, tuple):
        return tuple(_to(part, device) for part in argument)
    return argument.to(device) if isinstance(argument, Tensor) else argument


def _refuse_wrong_example(model: nn.Module, arguments: tuple) -> None:
    try:
        with torch.no_grad():
            copy.deepcopy(model).eval()(*arguments)
    except Exception as error:
        raise BadInput(f"example_input does not pass through {type(model).__name__}: {_short(error)}") from error


def _entries(found, is_output, twin: nn.Module):
    """[(layer name, side, indices, root indices)], the problems met, and the number of root channels."""
    members, problems = [], []
    modules = dict(twin.named_modules())
    for name, dep, indices, roots in found:
        module = dep.target.module
        if name is None or name not in modules:
            if isinstance(module, nn.Parameter):
                problems.append("they are used together with a bare parameter of the network")
            continue
        side = "out" if is_output(dep.handler) else "in"
        members.append((name, side, torch.tensor(indices), torch.tensor(roots)))
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)):
            problems.append(f"they go through {type(module).__name__} {name!r}, where removing is not exact")
        elif not isinstance(module, (*PRODUCERS, *VECTORS)) and (
            any(True for _ in module.parameters(recurse=False)) or isinstance(module, nn.MultiheadAttention)
        ):
            problems.append(f"they go through {type(module).__name__} {name!r}, which has no rule")
    return members, problems, len(found[0][2])


def _build(members, problems, size, model: nn.Module, tensors, order) -> Group:
    members = sorted(members, key=lambda member: order[member[0]])  # so that the first producer is the first layer
    unit = _units(members, size, model)
    count = int(unit.max()) + 1
    produces: list[Member] = []
    normalises: list[Member] = []
    consumes: list[Member] = []
    for name, side, indices, roots in members:
        module, channels = model.get_submodule(name), unit[roots]
        if isinstance(module, VECTORS):
            normalises += _vectors(name, module, indices, channels, tensors)
        elif not isinstance(module, (*PRODUCERS, ChannelIndex)):
            continue  # one of the problems
        elif side == "out":
            produces += _rows(name, module, indices, channels)
        else:
            consumes.append(_columns(name, module, indices, channels))
    producers = sorted({m.layer for m in produces if not m.is_buffer}, key=order.__getitem__)
    group = Group(producers[0], count, tuple(produces), tuple(normalises), tuple(consumes))
    modules = [model.get_submodule(name) for name, _, _, _ in members]
    return replace(
        group, reason_fixed=problems[0] if problems else _misfit(group, tensors) or _reason_fixed(group, modules)
    )


def _misfit(group: Group, tensors) -> str | None:
    """Why what the search found cannot be so: it follows neither pixel shuffle, channel shuffle, unflatten nor the use of a
    weight outside of its layer, and numbers channels past the end of a tensor, or finds nobody who reads them."""
    for member in group.members:
        if len(member.indices) and int(member.indices.max()) >= tensors[member.parameter].shape[member.dim]:
            return f"their way to {member.layer!r} mixes or reorders them, which the search for groups does not follow"
    read = torch.cat([member.channels for member in group.consumes]).unique() if group.consumes else None
    if read is not None and len(read) < group.size:
        readers = ", ".join(repr(member.layer) for member in group.consumes[:2])
        return (
            f"{group.size - len(read)} of them seem to be read by no layer, so their way to {readers} is not understood"
        )
    return None


def _rows(name: str, module: Any, indices: Tensor, channels: Tensor) -> list[Member]:
    """The rows of a layer, and the biases, that compute channels."""
    if isinstance(module, ChannelIndex):
        return [Member(f"{name}.index", 0, indices, channels, is_buffer=True)]
    rows = [Member(f"{name}.weight", int(_is_turned(module)), indices, channels)]
    return rows if module.bias is None else [*rows, Member(f"{name}.bias", 0, indices, channels)]


def _columns(name: str, module: Any, indices: Tensor, channels: Tensor) -> Member:
    """The columns of a layer that read channels."""
    if isinstance(module, ChannelIndex):
        return Member(f"{name}.index", 0, indices, channels, is_buffer=True)
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        relative, first = np.unique(indices % (module.in_channels // module.groups), return_index=True)
        return Member(f"{name}.weight", 1, torch.from_numpy(relative), channels[first])
    return Member(f"{name}.weight", int(not _is_turned(module)), indices, channels)


def _vectors(name: str, module: Any, indices: Tensor, channels: Tensor, tensors) -> Iterator[Member]:
    """The vectors of a norm or gate; a running mean only where there is no scale with which it is sliced."""
    scaled = f"{name}.weight" in tensors
    for vector in ("weight", "bias", "log_alpha") if scaled else ("bias", "log_alpha", "running_mean"):
        tensor = tensors.get(f"{name}.{vector}")
        if tensor is not None and not (isinstance(module, nn.PReLU) and len(tensor) == 1):
            yield Member(f"{name}.{vector}", 0, indices, channels, is_buffer=vector == "running_mean")


def _reason_fixed(group: Group, modules: list[Any]) -> str | None:
    if not group.consumes:
        return "they are outputs of the network"
    if any(m.is_buffer for m in group.produces) and any(m.is_buffer for m in group.consumes):
        # What arrives through an index layer has no weight to mask, and would travel on through the next one.
        return "they come and go through index layers, where nothing can be masked"
    if group.size == 1:
        return "they can only be removed all together"
    if any(_is_turned(module) and module.groups > 1 for module in modules):
        return "they belong to a grouped transposed convolution, which has no rule"
    return None


def _units(members, size: int, model: nn.Module) -> Tensor:
    """Root channel -> unit: root channels that meet in one entry, one head or in a grouped convolution are one unit."""
    parent = list(range(size))

    def root(c: int) -> int:
        while parent[c] != c:
            parent[c] = parent[parent[c]]
            c = parent[c]
        return c

    for name, side, indices, roots in members:
        module = model.get_submodule(name)
        key = indices
        head_dim = _head_dim(name, side, model)
        if head_dim is not None:
            key = indices // head_dim
        elif isinstance(module, CONVOLUTIONS) and module.groups > 1 and not _is_depthwise(module):
            # Every group must keep as many channels: the same relative channel goes in each of them.
            width = (module.in_channels if side == "in" else module.out_channels) // module.groups
            key = indices % width
        elif len(torch.unique(indices)) == len(indices):
            continue
        owner: dict[int, int] = {}
        for k, c in zip(key.tolist(), roots.tolist(), strict=True):
            if k in owner:
                parent[root(c)] = root(owner[k])
            else:
                owner[k] = c
    roots_of = [root(c) for c in range(size)]
    number = {r: i for i, r in enumerate(sorted(set(roots_of)))}
    return torch.tensor([number[r] for r in roots_of])


def _head_dim(name: str, side: str, model: nn.Module) -> int | None:
    """How many entries of a layer make one head, where the layer is part of an attention; None elsewhere."""
    parts = name.split(".")
    for length in range(len(parts)):  # a layer with a gate lies one level deeper
        parent = model.get_submodule(".".join(parts[:length]))
        if isinstance(parent, PrunableAttention):
            return parent.head_dim if (parts[length] == "out") == (side == "in") else None
    return None


def _is_depthwise(module: Any) -> bool:
    return bool(module.groups == module.in_channels == module.out_channels)


def _is_turned(module: Any) -> bool:
    return isinstance(module, CONVOLUTIONS) and module.transposed


def _refuse_shared_weights(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            raise Unprunable(
                f"{name!r} and {seen[id(parameter)]!r} are one shared parameter, so their channels cannot be removed; "
                "prune weights instead."
            )
        seen[id(parameter)] = name


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else "no message"
