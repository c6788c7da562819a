"""Playing the stages that change a network without training it: Prune, Rewind, Shrink, RecalibrateBatchNorm."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BudgetError
from pruning_core.experiments.stages import Prune, Rewind
from pruning_core.experiments.state import State, built
from pruning_core.experiments.steps import Step
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import Kept
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.methods.base import Method
from pruning_core.methods.shrinking import shrunk
from pruning_core.models.modes import evaluating
from pruning_core.pruning import prune_step


def prune_stage(state: State, stage: Prune, step: Step, seed: int) -> None:
    """All rounds of a Prune, on a network that may already be smaller than it was built."""
    method, budget = stage.method, stage.budget
    rounds = [(i, stage.rounds) for i in range(1, stage.rounds + 1)] if stage.rounds > 1 else [(step.round, step.of)]
    # Masks change no shape, so the sites are the same in every round; only Shrink makes a new search necessary.
    sites = _sites(state, method, scope=[*(step.part or ()), *(stage.scope or ())] or None)
    for number, (i, n) in enumerate(rounds):
        masks = Masks.dense(state.model, sites.weights) & state.masks
        now = budget
        if budget.to is not None:
            target = fraction_after(stage.schedule, i, n, budget.to)
            now = replace(budget, to=_of_what_is_left(state, sites, target, budget.of))
        batches = None
        if method.needs in ("inputs", "labels"):
            batches = _scoring_batches(state, stage, torch.Generator().manual_seed(seed + number))
        choice = prune_step(
            state.model, method, now, sites, masks, batches, seed + number, None, state.example, round=i, of=n
        )
        state.masks = choice.masks
    state.last |= {"method": method.name, "asked": budget.to, "of": budget.of}
    if sites.groups:
        # Of all channels that the method could remove, in or out of scope, the share that is gone or dead.
        groups = _sites(state, method).groups
        _note_channels(state, groups)
        living = sum(int(group.alive(state.masks).sum()) for group in groups.values())
        state.last |= {"channels_removed": 1 - living / sum(state.dense["channels"].values())}


def _sites(state: State, method: Method, scope: list[str] | None = None) -> Sites:
    channels = method.unit == "channel"
    traced = state.traced() if channels else None
    return find_sites(
        state.model, channels=channels, example_input=state.example, scope=scope, refuses=method.refuses, traced=traced
    )


def _note_channels(state: State, groups) -> None:
    for name, group in groups.items():
        state.dense["channels"].setdefault(name, group.size)


def _scoring_batches(state: State, stage: Prune, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    if stage.batches == "score" and stage.samples > len(state.data.score):
        raise BadInput(
            f"{stage.samples} samples were asked for, but the split for scoring holds {len(state.data.score)}; "
            "ask for fewer, or use batches='train'."
        )
    return some_batches(getattr(state.data, stage.batches), stage.samples, stage.batch_size, generator)


def _of_what_is_left(state: State, sites: Sites, target: float, of: str) -> float:
    """``target`` counts the network as built; after a removal the budget is a fraction of what is still there."""
    _note_channels(state, sites.groups)
    if of == "channels":
        names, now = list(sites.groups), sum(group.size for group in sites.groups.values())
    else:
        names = list(sites.weights)
        positions = sites.positions or {}
        now = sum(sites.shapes[n].numel() * (positions.get(n, 0) if of == "macs" else 1) for n in names)
    whole = sum(state.dense[of][name] for name in names)
    if now == whole:
        return target
    left = (1 - target) * whole / now
    if left > 1:
        raise BudgetError(f"the network already lacks more than the fraction {target:.4f} of its {of}.")
    # Removing whole channels can overshoot a target in weights by part of a channel.
    return min(max(1 - left, 0.0), 1 - 1e-9)


@torch.no_grad()
def rewind(state: State, stage: Rewind, seed: int) -> None:
    if stage.to == "new":
        values = dict(built(state.experiment, state.data, seed).state_dict())
    elif stage.to in state.snapshots:
        values = state.snapshots[stage.to]
    else:
        raise BadInput(f"nothing was saved as {stage.to!r}; saved: {', '.join(sorted(state.snapshots))}.")
    prunable = set(find_sites(state.model, channels=False).weights)
    for name, tensor in state.model.state_dict().items():
        if stage.what == "weights" and name not in prunable:
            continue
        if name not in values or values[name].shape != tensor.shape:
            raise BadInput(f"{name!r} of {stage.to!r} does not fit the network any more; rewind before Shrink.")
        tensor.copy_(values[name])
    state.masks.apply_(state.model)


def shrink(state: State) -> Kept:
    """Cut dead channels out of the network, its masks and snapshots; returns what is kept."""
    sites = find_sites(state.model, channels=True, example_input=state.example, traced=state.traced())
    state.model, kept = shrunk(state.model, state.masks, sites, state.example)
    state.masks = kept.masks(state.masks)
    for label, snapshot in state.snapshots.items():
        state.snapshots[label] = {name: kept.slice(name, tensor) for name, tensor in snapshot.items()}
    return kept


def recalibrate(model: nn.Module, split: Split, samples: int, seed: int = 0) -> None:
    """Replace the running statistics of batch norm by plain averages over ``samples`` of ``split``, in place."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = {norm: norm.momentum for norm in norms}
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for inputs, _ in some_batches(split, samples, 256, torch.Generator().manual_seed(seed)):
            if len(inputs) > 1:
                model(inputs.to(device))
    for norm, momentum in momenta.items():
        norm.momentum = momentum


def some_batches(split: Split, samples: int, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Batches with ``samples`` random samples of a split."""
    batches, count = [], 0
    for inputs, labels in split.batches(min(size, samples), generator):
        take = min(len(labels), samples - count)
        batches.append((inputs[:take], labels[:take]))
        count += take
        if count >= samples:
            break
    return batches
