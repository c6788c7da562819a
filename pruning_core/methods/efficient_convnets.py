r"""Efficient ConvNets: filters of least L1 norm go, the same fraction in every layer (Li et al. 2017, li2017filters).

    score(c) = sum over inputs i and kernel entries of |W[c, i]|

The paper knows two ways through the layers. *Independent*: each layer is ranked as it was trained. *Greedy*: layers are
taken from the front to the back, and a filter gets no credit for inputs that were cut in the layers before. The code of
SNIP-it takes the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.checks import Constraints, OneOf
from pruning_core.masks.budgets import Budget
from pruning_core.masks.groups import Group, expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.scores import COMBINERS, Scores, combine
from pruning_core.methods.base import Choice, Method, View, channel_counts, living, register, weight_rows


@register
@dataclass(frozen=True)
class EfficientConvNets(Method):
    """In every layer the filters with the smallest sum of absolute weights go.

    ``greedy=True`` leaves inputs that are cut already out of the norms. ``combine``: how the norms of several producers of
    one channel become one.
    """

    name = "efficient_convnets"
    citation = "li2017filters"
    unit = "channel"
    needs = "shape"

    constraints = Constraints(combine=OneOf(*COMBINERS, kind="combination"))

    greedy: bool = False
    combine: str = "sum"

    def score(self, view: View) -> Scores:
        """Norms on the network as it is: what the choice of the first layer sees."""
        return Scores({name: self._norms(view, group, view.alive) for name, group in view.sites.groups.items()})

    def choose(self, view: View, budget: Budget) -> Choice:
        kept, remarks = channel_counts(view, budget)
        masks = view.alive
        for name, group in view.sites.groups.items():
            norms = self._norms(view, group, masks if self.greedy else view.alive)
            norms = torch.where(group.alive(masks).to(norms.device), norms, -1.0)
            order = torch.argsort(norms, descending=True, stable=True)
            chosen = torch.zeros(group.size, dtype=torch.bool)
            chosen[order[: kept[name]].cpu()] = True
            masks = masks & expand({name: chosen}, view.sites.groups, view.sites.shapes)
        return Choice(masks, {}, remarks)

    def _norms(self, view: View, group: Group, masks: Masks) -> Tensor:
        parts = []
        for member in weight_rows(group):
            left = living(view.parameter(member.parameter).abs(), member.parameter, masks)
            rows = left.movedim(member.dim, 0).flatten(1).sum(1)
            parts.append(member.per_channel(rows, group.size))
        return combine(parts, self.combine)
