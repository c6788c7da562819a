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

from bisect import bisect_left
from dataclasses import replace

import torch
from torch import Tensor

from pruning_core.checks import checked
from pruning_core.errors import BadInput, BudgetError
from pruning_core.masks import Budget, Group, Masks, Scores, Sites, allocate
from pruning_core.masks.budgets import check_possible
from pruning_core.masks.reports import count_removed
from pruning_core.methods.base import Choice, View, reading_columns, register
from pruning_core.methods.shared import elasticities


@register
class Cnip(elasticities.Sensitivity):
    """Weights and channels of least elasticity go first, by one threshold for both."""

    name, citation = "cnip", "verdenius2020snipit"
    unit = "channel"
    counts = "weights"

    combine: str = "sum"

    def shrinks(self) -> bool:
        return True

    def score(self, view: View) -> Scores:
        """The channels' half of the scores; ``choose`` ranks the weights beside them."""
        return Scores({name: score for name, score in self._elasticities(view).items() if name in view.sites.groups})

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if budget.across != "global":
            raise BudgetError("cnip compares weights and channels over the whole network; across must be 'global'.")
        if budget.round_to > 1 and budget.of != "channels":
            raise BadInput(
                f"round_to={budget.round_to} rounds numbers of channels, and cnip removes single weights too."
            )

    def check_possible(self, budget: Budget, alive: Masks, sites: Sites) -> None:
        if budget.to is not None:
            check_possible(budget, alive, sites, channels=budget.of == "channels")

    def choose(self, view: View, budget: Budget) -> Choice:
        scores = view.of_living(self._elasticities)
        weights, channels = (Scores({n: scores[n] for n in names}) for names in (view.sites.weights, view.sites.groups))
        if budget.below is not None:
            return Choice(_below(view, budget.below, budget.keep_at_least, weights, channels)[1])
        return Choice((_by_channels if budget.of == "channels" else _by_weights)(view, budget, weights, channels))

    def _elasticities(self, view: View) -> Scores:
        """Those of weights, by parameter, and those of channels, by group."""
        groups = view.sites.groups
        names = dict.fromkeys([*view.sites.weights, *elasticities.producing_parameters(groups.values())])
        gradients, loss = self.gradients(view, names)
        of_scope = {name: gradients[name] for name in view.sites.weights}
        weights = elasticities.weight_elasticities(view.model, of_scope, loss)
        return Scores(weights | elasticities.channel_elasticities(view.model, gradients, loss, groups, self.combine))


def _below(view: View, threshold: float, keep: int, weights: Scores, channels: Scores) -> tuple[Masks, Masks]:
    """Masks without the channels that score at most ``threshold``, and without the weights as well."""
    budget = Budget(below=threshold, keep_at_least=keep)
    alive = allocate(channels, budget, view.alive, view.sites)
    return alive, allocate(weights, budget, alive, view.sites)


def _by_weights(view: View, budget: Budget, weights: Scores, channels: Scores) -> Masks:
    """Remove channels from the least one up while the weights and channels below that score fit into the budget; single
    weights fill up the rest exactly."""
    assert budget.to is not None
    goal = budget.to
    living = [score[view.sites.groups[name].alive(view.alive)] for name, score in channels.items()]
    ladder = torch.cat(living).sort().values.tolist()

    def too_much(threshold: float) -> bool:
        _, both = _below(view, threshold, budget.keep_at_least, weights, channels)
        removed, total = count_removed(budget.of, both, view.sites)
        return removed > goal * total

    count = bisect_left(ladder, True, key=too_much)
    best = _below(view, ladder[count - 1], budget.keep_at_least, weights, channels)[0] if count else view.alive
    return allocate(weights, budget, best, view.sites)


def _by_channels(view: View, budget: Budget, weights: Scores, channels: Scores) -> Masks:
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
    best = (-1.0, "", 0)
    for member in reading_columns(group):
        if member.parameter not in weights:
            continue
        mask = masks[member.parameter] if member.parameter in masks else torch.ones_like(weights[member.parameter]) > 0
        columns = torch.zeros_like(mask)
        columns.index_fill_(member.dim, member.indices[member.channels == channel], True)
        scores = torch.where(columns & mask, weights[member.parameter].cpu(), -1.0).flatten()
        top = int(scores.argmax())
        if float(scores[top]) > best[0]:
            best = (float(scores[top]), member.parameter, top)
    _, parameter, top = best
    if parameter:
        found[parameter] = found[parameter].clone()
        found[parameter].view(-1)[top] = True


@checked
def official_shares(weight_scores: Tensor, node_scores: Tensor, share: float) -> tuple[float, float]:
    """The fractions of weights and of nodes that the official CNIP removes when asked for ``share`` of both together.

    ``weight_scores`` holds those of dead weights too, as zeros, ``node_scores`` those of inputs and outputs.
    Raises BadInput when there is nothing to rank. Verdenius et al. 2020, as implemented.

    >>> official_shares(torch.tensor([0.0, 0.0, 1.0, 2.0]), torch.tensor([0.5, 3.0]), 0.5)
    (0.5, 0.5)
    """
    pool = torch.cat([weight_scores.flatten(), node_scores.flatten()])
    if not pool.numel():
        raise BadInput("there are no scores to share a removal over.")
    kept = min(max(int(pool.numel() * (1 - share)), 1), pool.numel())
    threshold = pool.sort(descending=True).values[kept - 1]
    return float((weight_scores < threshold).double().mean()), float((node_scores < threshold).double().mean())
