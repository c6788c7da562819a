"""Budgets of methods that compare channels within a layer only."""

from dataclasses import replace

import torch

from pruning_core.masks import Budget, Scores, allocate
from pruning_core.methods.base import View


def within_layers(budget: Budget) -> tuple[Budget, tuple[str, ...]]:
    """A global budget as the same fraction of every layer, with a remark for the report; others as they are."""
    if budget.across != "global":
        return budget, ()
    remark = "channels are compared within a layer only, so every layer lost the same fraction"
    return replace(budget, across="layer"), (remark,)


def channel_counts(view: View, budget: Budget) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many channels each group keeps, for methods that compare channels :func:`within_layers` only; remarks."""
    budget, remarks = within_layers(budget)
    equal = Scores({name: torch.zeros(group.size) for name, group in view.sites.groups.items()})
    masks = allocate(equal, budget, view.alive, view.sites)
    return {name: int(group.alive(masks).sum()) for name, group in view.sites.groups.items()}, remarks
