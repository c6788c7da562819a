r"""CNIP and CNIP-it: weights and channels compete on one scale (Verdenius et al. 2020, verdenius2020snipit).

An elasticity is a relative change of the loss for a relative change of anything, so those of single weights and of
whole channels can stand in one list. One threshold t cuts both:

    channel j goes if e(j) <= t,      weight w goes if e(w) <= t or its channel goes

t is chosen such that the budget holds. The pool is what is alive: weights in scope and channels that can be removed.

The official code removes shares instead: with p the fraction to remove of what is left, and one threshold over all
scores *including those of weights that are gone already*, it passes the share of weights below the threshold to SNIP and
the share of nodes to SNAP. Dead weights score 0 and fill the share up, so an event may remove nothing
(:func:`official_shares`; chapter 4 shows it stall).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.errors import BadInput, BudgetError
from pruning_core.masks.budgets import Budget
from pruning_core.masks.scores import Scores
from pruning_core.methods.base import Choice, View, register
from pruning_core.methods.shared.elasticities import (
    Sensitivity,
    channel_elasticities,
    producing_parameters,
    weight_elasticities,
)
from pruning_core.methods.shared.one_threshold import below, by_channels, by_weights


@register
@dataclass(frozen=True)
class Cnip(Sensitivity):
    """Weights and channels of least elasticity go first, by one threshold for both."""

    name = "cnip"
    citation = "verdenius2020snipit"
    unit = "channel"
    counts = "weights"

    combine: str = "sum"

    def score(self, view: View) -> Scores:
        """The channels' half of the scores; ``choose`` ranks the weights beside them."""
        return self._elasticities(view)[1]

    def choose(self, view: View, budget: Budget) -> Choice:
        if not isinstance(budget.across, str) or budget.across != "global":
            raise BudgetError("cnip compares weights and channels over the whole network; across must be 'global'.")
        weights, channels = self._elasticities(view)
        if budget.below is not None:
            return Choice(below(view, budget.below, budget.keep_at_least, weights, channels)[1])
        return Choice((by_channels if budget.of == "channels" else by_weights)(view, budget, weights, channels))

    def _elasticities(self, view: View) -> tuple[Scores, Scores]:
        groups = view.sites.groups
        names = dict.fromkeys([*view.sites.weights, *producing_parameters(groups.values())])
        gradients, loss = self.gradients(view, names)
        of_weights = weight_elasticities(view.model, {name: gradients[name] for name in view.sites.weights}, loss)
        return Scores(of_weights), Scores(channel_elasticities(view.model, gradients, loss, groups, self.combine))


def official_shares(weight_scores: Tensor, node_scores: Tensor, share: float) -> tuple[float, float]:
    """The fractions of weights and of nodes that the official CNIP removes when asked for ``share`` of both together.

    ``weight_scores`` holds those of dead weights too, as zeros, ``node_scores`` those of inputs and outputs.
    Raises BadInput when there is nothing to rank. Verdenius et al. 2020, as implemented.
    """
    pool = torch.cat([weight_scores.flatten(), node_scores.flatten()])
    if not pool.numel():
        raise BadInput("there are no scores to share a removal over.")
    kept = min(max(int(pool.numel() * (1 - share)), 1), pool.numel())
    threshold = pool.sort(descending=True).values[kept - 1]
    return float((weight_scores < threshold).double().mean()), float((node_scores < threshold).double().mean())
