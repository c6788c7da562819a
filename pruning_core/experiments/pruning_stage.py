"""Playing a Prune: sites, batches and budgets of a network that may already be smaller than it was built."""

from __future__ import annotations

from dataclasses import replace

import torch

from pruning_core.errors import BadInput, BudgetError
from pruning_core.experiments.stages import Prune
from pruning_core.experiments.state import State
from pruning_core.experiments.steps import Step, some_batches
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.methods.base import Method
from pruning_core.pruning import prune_step


def prune_stage(state: State, stage: Prune, step: Step, seed: int) -> None:
    method: Method = stage.method  # type: ignore[assignment]
    budget: Budget = stage.budget  # type: ignore[assignment]
    scope = list(step.part or ()) + list(stage.scope or ()) or None
    rounds = [(i, stage.rounds) for i in range(1, stage.rounds + 1)] if stage.rounds > 1 else [(step.round, step.of)]
    # Masks change no shape, so the sites are the same in every round; only Shrink makes a new search necessary.
    channels = method.unit == "channel"
    traced = state.traced() if channels else None
    sites = find_sites(
        state.model,
        channels=channels,
        example_input=state.example,
        scope=scope,
        refuses=method.refuses,
        traced=traced,
    )
    for number, (i, n) in enumerate(rounds):
        masks = Masks.dense(state.model, sites.weights) & state.masks
        now = budget
        if budget.to is not None:
            target = fraction_after(stage.schedule, i, n, budget.to)
            now = replace(budget, to=_of_what_is_left(state, sites, target, budget.of))
        generator = torch.Generator().manual_seed(seed + number)
        batches = None
        if method.needs in ("inputs", "labels"):
            split = state.setting.data.train if stage.batches == "train" else state.setting.data.score
            if stage.batches == "score" and stage.samples > len(split):
                raise BadInput(
                    f"{stage.samples} samples were asked for, but the split for scoring holds {len(split)}; "
                    "ask for fewer, or use batches='train'."
                )
            batches = some_batches(split, stage.samples, stage.batch_size, generator)
        choice = prune_step(
            state.model, method, now, sites, masks, batches, seed + number, None, state.example, round=i, of=n
        )
        state.masks = choice.masks
    state.last |= {"method": method.name, "asked": budget.to, "of": budget.of}
    if sites.groups:
        state.last |= {"channels_removed": _channels_removed(state, method)}


def _channels_removed(state: State, method: Method) -> float:
    """Share of all channels that the method could remove, in or out of scope, that is gone or dead."""
    sites = find_sites(
        state.model, channels=True, example_input=state.example, refuses=method.refuses, traced=state.traced()
    )
    for name, group in sites.groups.items():
        state.dense["channels"].setdefault(name, group.size)
    living = sum(int(group.alive(state.masks).sum()) for group in sites.groups.values())
    return 1 - living / sum(state.dense["channels"].values())


def _of_what_is_left(state: State, sites: Sites, target: float, of: str) -> float:
    """``target`` counts the network as built; after a removal the budget is a fraction of what is still there."""
    for name, group in sites.groups.items():
        state.dense["channels"].setdefault(name, group.size)
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
