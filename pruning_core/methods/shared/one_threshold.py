"""One threshold for weights and channels together, found so that a budget holds (CNIP)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.groups import Group
from pruning_core.masks.masks import Masks
from pruning_core.masks.reports import count_removed
from pruning_core.masks.scores import Scores
from pruning_core.methods.base import View


def below(view: View, threshold: float, keep: int, weights: Scores, channels: Scores) -> tuple[Masks, Masks]:
    """Masks without the channels that score at most ``threshold``, and without the weights as well."""
    budget = Budget(below=threshold, keep_at_least=keep)
    alive = allocate(channels, budget, view.alive, view.sites)
    return alive, allocate(weights, budget, alive, view.sites)


def by_weights(view: View, budget: Budget, weights: Scores, channels: Scores) -> Masks:
    """Remove channels from the least one up while the weights and channels below that score fit into the budget; single
    weights fill up the rest exactly."""
    assert budget.to is not None
    living = [score[view.sites.groups[name].alive(view.alive)] for name, score in channels.items()]
    ladder = torch.cat(living).sort().values
    low, high = 0, len(ladder)  # so many channels go at least; at most
    best = view.alive
    while low < high:
        middle = (low + high + 1) // 2
        cut, both = below(view, float(ladder[middle - 1]), budget.keep_at_least, weights, channels)
        removed, total = count_removed(budget.of, both, view.sites)
        if removed <= budget.to * total:
            low, best = middle, cut
        else:
            high = middle - 1
    return allocate(weights, budget, best, view.sites)


def by_channels(view: View, budget: Budget, weights: Scores, channels: Scores) -> Masks:
    """The channels decide the threshold; weights below it go along, but no channel loses its last reader."""
    assert budget.to is not None
    groups = view.sites.groups
    total = sum(group.size for group in groups.values())
    for fewer in range(total):
        # A channel also dies when the last of its readers goes: then fewer need to be chosen.
        ask = replace(budget, to=max(budget.to - fewer / total, 0.0))
        masks = allocate(channels, ask, view.alive, view.sites)
        if count_removed("channels", masks, view.sites)[0] <= budget.to * total + 0.5:
            break
    gone = torch.cat([channels[name][group.alive(view.alive) & ~group.alive(masks)] for name, group in groups.items()])
    if not gone.numel():
        return masks
    cut = Budget(below=float(gone.max()), keep_at_least=budget.keep_at_least)
    found = allocate(weights, cut, masks, view.sites)
    revived = dict(found)
    for group in groups.values():
        for channel in (group.alive(masks) & ~group.alive(found)).nonzero().flatten().tolist():
            _revive(group, channel, weights, masks, revived)
    return Masks(revived)


def _revive(group: Group, channel: int, weights: Scores, masks: Masks, found: dict[str, Tensor]) -> None:
    """Give a channel back its best reading weight, so that it is not removed by the back door."""
    best: tuple[float, str, int] | None = None
    for member in group.consumes:
        if member.is_buffer or member.parameter not in weights:
            continue
        mask = masks[member.parameter] if member.parameter in masks else torch.ones_like(weights[member.parameter]) > 0
        columns = torch.zeros_like(mask)
        columns.index_fill_(member.dim, member.indices[member.channels == channel], True)
        scores = torch.where(columns & mask, weights[member.parameter].cpu(), -1.0).flatten()
        top = int(scores.argmax())
        if float(scores[top]) >= 0 and (best is None or float(scores[top]) > best[0]):
            best = (float(scores[top]), member.parameter, top)
    if best is not None:
        mask = found[best[1]].clone()
        mask.view(-1)[best[2]] = True
        found[best[1]] = mask
