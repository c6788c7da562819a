"""Many cuts one after the other, all but the last by a threshold that a sample of the scores gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.masks import Masks
from pruning_core.masks.reports import count_removed
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.scores import Scores
from pruning_core.methods.base import View

SAMPLE = 2**18  # scores that a threshold between the rounds is read from


def before_last(view: View, budget: Budget, rounds: int, score: Callable[[View], Mapping[str, Tensor]]) -> Masks:
    """What ``rounds - 1`` geometric cuts leave, each by the ``score`` of what the last one left; the network is changed.

    Should they have gone beyond the budget, everything that was alive before them.
    """
    assert budget.to is not None
    removed, total = count_removed(budget.of, view.alive, view.sites)
    start, masks = min(removed / total, budget.to), view.alive
    plain = budget.across == "global" and budget.of == "weights"
    for i in range(1, rounds):
        target = fraction_after("geometric", i, rounds, budget.to, start)
        if plain:
            _cut_roughly(view, score(view), target)
        else:
            masks = allocate(Scores(score(view)), replace(budget, to=target), masks, view.sites)
            masks.apply_(view.model)
    if plain:
        masks = view.alive & Masks.of_nonzero(view.model, view.sites.weights)
    removed, total = count_removed(budget.of, masks, view.sites)
    return masks if removed <= budget.to * total + 0.5 else view.alive


@torch.no_grad()
def _cut_roughly(view: View, scores: Mapping[str, Tensor], target: float) -> None:
    """Zero the weights of least score, in place, until about ``target`` of all is zero; no layer loses its last one.

    The next round starts from what really went, and the last round of all is exact: sorting millions of scores a hundred
    times would take longer than to compute them.
    """
    step = max(1, sum(score.numel() for score in scores.values()) // SAMPLE)
    sample = torch.cat([score.flatten()[::step] for score in scores.values()])
    zero = int(target * len(sample))
    if zero < 1 or zero > len(sample) - 1:
        return
    threshold = sample.kthvalue(zero).values
    for name, score in scores.items():
        parameter = view.model.get_parameter(name)
        # The sample answers for nearly every layer that something in it stays; only the others are looked through.
        if score.flatten()[::step].max() > threshold or score.max() > threshold:
            parameter.mul_(score.gt_(threshold))
        else:
            parameter.mul_(score == score.max())
