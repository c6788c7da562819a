"""Where a network can be pruned: its weights in scope, its channel groups, and what each weight costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from pruning_core.checks import checked
from pruning_core.data.feeds import Feed
from pruning_core.errors import BadInput, BadType, Unprunable, named_failures, shown
from pruning_core.masks.groups import Group
from pruning_core.masks.tracing import PRODUCERS, groups_and_positions
from pruning_core.models.calls import like_model, mapped
from pruning_core.models.cost import (
    check_example,
    output_positions,
    quantised_layers,
    values_cost_little,
    weightless_copy,
)
from pruning_core.models.effective import remakes_weight
from pruning_core.models.ready import check_open, check_shapes

PRUNABLE = (*PRODUCERS, nn.Bilinear, nn.RNNBase, nn.MultiheadAttention)

Scope = Iterable[str] | Callable[[str, nn.Module], bool] | None
InScope = Callable[..., bool]  # (name of a layer, module), or with exact=True of a parameter


@checked
def find_sites(
    model: nn.Module,
    *,
    channels: bool,
    example_input=None,
    scope: Scope = None,
    refuses: Callable[[nn.Module, Group], str | None] = lambda model, group: None,
    traced: tuple[list[Group], dict[str, int]] | None = None,
) -> Sites:
    """The sites of ``model``: weights of convolutions, linear, recurrent and attention layers; channel groups on demand.

    ``scope`` narrows them: patterns on layer names like ``["features.*", "!features.0"]`` (a pattern that fits nothing
    is an error), or a function (name, module) -> bool. A parameter of another layer type is in scope when a pattern names
    it in full. A group is in scope when all layers that produce its channels are. ``traced``: what ``groups_and_positions``
    gives for this network, when that is known.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> list(find_sites(network, channels=True, example_input=torch.zeros(1, 4)).groups)
    ['0']
    """
    check_shapes(model)
    check_open(model)
    in_scope = _scope(model, scope)
    weights, excluded = _weights(model, in_scope)
    if not weights:
        where = " in scope" if scope is not None else ""
        reasons = "; ".join(f"{name}: {why}" for name, why in list(excluded.items())[:3] if why != "out of scope")
        raise Unprunable(f"{type(model).__name__} has no prunable layer{where}{f' ({reasons})' if reasons else ''}.")
    groups: dict[str, Group] = {}
    positions: Mapping[str, int] | None = None
    if channels:
        every, positions = traced if traced is not None else groups_and_positions(model, example_input)
        for group in every:
            producers = {m.layer for m in group.produces if not m.is_buffer}
            reason = group.reason_fixed or refuses(model, group)
            if reason is None and not all(in_scope(layer, model.get_submodule(layer)) for layer in producers):
                reason = "out of scope"
            if reason is None:
                groups[group.name] = group
            else:
                excluded[f"channels of {group.name}"] = reason
        excluded |= _never_called(weights, every, positions)
        if not groups:
            _refuse_without_channels(model, excluded)
    if example_input is not None:
        positions = _positions(model, example_input) if positions is None else positions
        positions = {name: positions.get(name.rpartition(".")[0], 0) for name in weights}
    else:
        positions = None
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return Sites(shapes, tuple(weights), groups, positions, excluded)


def _weights(model: nn.Module, in_scope: InScope) -> tuple[list[str], dict[str, str]]:
    """Names of the weights that may be pruned, and of what is left out, with the reason."""
    weights = []
    excluded = dict.fromkeys(
        quantised_layers(model), "quantised, so nothing in it can be pruned: prune before quantising"
    )
    for name, parameter in model.named_parameters():
        layer, _, _ = name.rpartition(".")
        module = model.get_submodule(layer)
        if parameter.dim() < 2 or not parameter.is_floating_point():
            continue
        if in_scope(name, module, exact=True):
            weights.append(name)
        elif isinstance(module, PRUNABLE) and remakes_weight(module):
            excluded[name] = (
                f"{type(module).__name__} computes with another weight made of it, in which zeros would not stay"
            )
        elif isinstance(module, PRUNABLE) and in_scope(layer, module):
            weights.append(name)
        elif isinstance(module, ParametrizationList):
            remedy = "torch.nn.utils.parametrize.remove_parametrizations(layer, name) makes it a plain one"
            excluded[name] = f"part of a parametrised weight; {remedy}"
        elif isinstance(module, PRUNABLE):
            excluded[layer] = "out of scope"
        else:
            excluded[name] = f"a weight of {type(module).__name__}, which is pruned only when scope names it"
    return weights, excluded


def _never_called(weights: list[str], groups: Iterable[Group], called: Mapping[str, int]) -> dict[str, str]:
    """Layers that nothing went through while the channels were followed, neither in evaluation nor in training mode."""
    followed = {member.layer for group in groups for member in group.members} | called.keys()
    layers = (name.removesuffix(".weight") for name in weights if name.endswith(".weight"))
    reason = (
        "the example does not pass through it; inputs that do may find that what it reads is narrower: give one of those "
        "as example_input"
    )
    return {f"channels of {layer}": reason for layer in layers if layer not in followed}


def _refuse_without_channels(model: nn.Module, excluded: Mapping[str, str]) -> NoReturn:
    telling = sorted(excluded.items(), key=lambda item: item[1] == "out of scope")  # what scope cannot help first
    reasons = "; ".join(f"{name}: {why}" for name, why in telling[:3])
    reasons = reasons or "no layer could be followed from its weights to the outputs"
    raise Unprunable(f"{type(model).__name__} has no channels that can be removed ({reasons}); prune weights instead.")


def _positions(model: nn.Module, example_input) -> dict[str, int]:
    """Output positions by layer; shapes are enough, so values are computed only where they cost little or are needed."""
    example = check_example(example_input)
    try:
        if not values_cost_little(model, example):
            return output_positions(weightless_copy(model), mapped(lambda tensor: tensor.to("meta"), example))
    except Exception:  # a forward pass that looks at values
        pass
    return output_positions(model, like_model(model, example, None)[0])


def _scope(model: nn.Module, scope: Scope) -> InScope:
    if scope is None:
        return lambda name, module, exact=False: not exact
    if callable(scope):
        return lambda name, module, exact=False: not exact and _chosen(scope, name, module)
    patterns = [scope] if isinstance(scope, str) else list(scope)
    known = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise BadType(f"scope takes patterns on layer names, not {shown(pattern)}.")
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in known):
            raise BadInput(f"scope {pattern!r} fits no layer of {type(model).__name__}.")
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    def inside(name: str, module: nn.Module, exact: bool = False) -> bool:
        if exact:
            return name in wanted
        chosen = not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)
        return chosen and not any(fnmatchcase(name, pattern) for pattern in unwanted)

    return inside


def _chosen(scope: Callable[[str, nn.Module], bool], name: str, module: nn.Module) -> bool:
    """What a function of the user's says of a layer; BadInput for what it raises."""
    with named_failures(f"the function of scope, for layer {name!r},"):
        return bool(scope(name, module))


def check_batches(batches, needs: str, method: str, model: nn.Module | None = None) -> Any:
    """Batches that can be iterated again and again, as (inputs, labels); refuses what is empty or lacks labels.

    Methods that need no labels take inputs alone; ``model`` says in which order it takes inputs that a dict holds.
    """
    if batches is None:
        if needs in ("nothing", "shape"):
            return None
        raise BadInput(f"method {method!r} needs batches of {'(inputs, labels)' if needs == 'labels' else 'inputs'}.")
    found = Feed(batches, model)
    if found.first()[1] is None and needs == "labels":
        raise BadInput(f"method {method!r} needs labels; its batches must be pairs (inputs, labels).")
    return found


@dataclass(frozen=True)
class Sites:
    """What a method may prune: single weights of the parameters ``weights``, or channels of ``groups``.

    Fractions "of weights" and "of macs" refer to ``weights``. ``positions`` says how many multiply-accumulates one
    weight of a parameter costs; None when no example was given. ``shapes`` holds the shape of every parameter of the
    network, ``excluded`` the layers and groups that cannot be pruned, or are out of scope, and why.

    >>> sites = find_sites(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), channels=False)
    >>> sites.weights
    ('0.weight', '1.weight')
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
