"""The guard behind the search: groups on whose way sizes are written out or dimensions split are cut in a trial.

Every third channel of all doubted groups goes at once; only if that fails, those to blame are looked for. A channel that
passes nothing but convolutions, norms, sums and the like needs no trial: their rules are exact whatever goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from pruning_core.errors import PruningError, said
from pruning_core.masks.comparing import compare
from pruning_core.masks.finder.grouping import Found
from pruning_core.masks.finder.labels import VALUES
from pruning_core.masks.finder.trace import Trace
from pruning_core.masks.groups import Group, expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import remove
from pruning_core.models.calls import tensors_of
from pruning_core.models.modes import copied

COSTLY = 4e9  # multiply-accumulates of a network whose values are not compared here: shrink() does it once more
REASON = "the network writes out their number or order"


class Failure(NamedTuple):
    """What happened when channels were cut, and in which module, if that is known."""

    reason: str
    place: str | None = None


Trial = Callable[[list[Found]], Failure | None]


def probed(
    found: list[Found], trace: Trace, model: nn.Module, arguments: tuple, fresh: Callable[[], tuple]
) -> list[Group]:
    """The groups, where those that a trial shows to be wrong are fixed and say what happened.

    ``fresh`` gives a copy of ``model`` that may be cut, perhaps without values, and the arguments with which it runs.
    """
    doubted = [one for one in found if one.group.reason_fixed is None and one.doubt]
    classes = {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}
    reasons = _blamed(doubted, lambda groups: _shapes(fresh, groups, trace), classes)
    split = [one for one in doubted if one.doubt == VALUES and one.group.name not in reasons]
    weights = dict(model.named_parameters())
    macs = sum(weights[f"{n}.weight"].numel() * p for n, p in trace.positions.items() if f"{n}.weight" in weights)
    if macs <= COSTLY:
        reasons |= _blamed(split, lambda groups: _values(model, groups, arguments), classes)
    return [replace(one.group, reason_fixed=one.group.reason_fixed or reasons.get(one.group.name)) for one in found]


def _blamed(found: list[Found], trial: Trial, classes: Mapping[str, type]) -> dict[str, str]:
    """Name -> reason of the groups that cannot be cut.

    Where the module is known in which a trial broke off, those of its groups that fail are to blame, and the groups of its
    like if they fail, too; else halves are tried.
    """
    failure = trial(found) if found else None
    if failure is None:
        return {}
    if len(found) == 1:
        return {found[0].group.name: failure.reason}
    if failure.place is not None:
        at_place = [one for one in found if failure.place in one.places]
        kind = classes[failure.place]
        if at_place:
            culprits = {} if len(at_place) == 1 else _halved(at_place, trial)  # a forward pass without modules has many
            blamed = culprits or {one.group.name: failure.reason for one in at_place}
            alike = [
                one for one in found if one not in at_place and _is_like(one, blamed, failure.place, kind, classes)
            ]
            again = trial(alike) if alike else None
            if again is not None and again.place is not None and classes[again.place] is kind:
                blamed |= {one.group.name: again.reason for one in alike}
            return blamed | _blamed([one for one in found if one.group.name not in blamed], trial, classes)
    half = len(found) // 2
    return _blamed(found[:half], trial, classes) | _blamed(found[half:], trial, classes)


def _is_like(one: Found, blamed: Mapping[str, str], place: str, kind: type, classes: Mapping[str, type]) -> bool:
    """Whether a group has the name, inside of another module of this kind, of one that is to blame at ``place``."""
    names = {name.removeprefix(f"{place}.") for name in blamed}
    return any(classes[other] is kind and one.group.name.removeprefix(f"{other}.") in names for other in one.places)


def _halved(found: list[Found], trial: Trial) -> dict[str, str]:
    """The same, by halves alone; groups that fail only together are all to blame."""
    failure = trial(found)
    if failure is None:
        return {}
    half = len(found) // 2
    blamed = _halved(found[:half], trial) | _halved(found[half:], trial) if half else {}
    return blamed or {one.group.name: failure.reason for one in found}


def _masks(model: nn.Module, groups: list[Group]) -> Masks:
    """Every third channel dead, the second first."""
    keep = {group.name: torch.arange(group.size) % 3 != 1 for group in groups}
    return expand(keep, {group.name: group for group in groups}, {n: p.shape for n, p in model.named_parameters()})


def _shapes(fresh: Callable[[], tuple], found: list[Found], trace: Trace) -> Failure | None:
    """Whether the smaller network runs, and gives outputs of the same shapes."""
    twin, arguments = fresh()
    groups = [one.group for one in found]
    remove(twin, _masks(twin, groups), groups)
    running: list[str] = []

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        running.pop()

    for name, module in twin.named_modules():
        module.register_forward_pre_hook(lambda module, inputs, name=name: running.append(name))
        module.register_forward_hook(leave)
    try:
        with torch.no_grad():
            shapes = [tensor.shape for tensor in tensors_of(twin.eval()(*arguments))]
    except Exception as error:
        return Failure(f"{REASON}: without some of them, {said(error, 120)}", running[-1] if running else None)
    return None if shapes == trace.shapes else Failure(f"{REASON}: without some of them the outputs have other shapes")


def _values(model: nn.Module, found: list[Found], arguments: tuple) -> Failure | None:
    """Whether the smaller network gives the outputs of the masked one."""
    groups = [one.group for one in found]
    masked, small = copied(model), copied(model)
    masks = _masks(model, groups)
    masks.apply_(masked)
    try:
        remove(small, masks, groups)
        compare(masked, small, arguments)
    except PruningError as error:
        return Failure(f"{REASON}: {str(error).partition('; ')[0].rstrip('.')}")
    return None
