r"""Filter norms: a channel is as important as the filter that makes it.

    L1 norm            ``score(c) = sum |W[c]|``                         (Li et al. 2017)
    L2 norm            ``score(c) = sqrt(sum W[c]^2)``                   (He et al. 2018)
    geometric median   ``score(c) = sum_j ||W[c] - W[j]||_2``            (He et al. 2019; j over living filters)

W[c] is the row of a linear layer or the filter of a convolution that produces channel c. Where several layers produce
it (a residual sum), ``combine`` says how their scores become one. The papers rank filters inside a layer; ``normalise``
makes layers comparable for a global budget, by default through their mean score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.masks import Group, Scores
from pruning_core.masks.scores import combine
from pruning_core.methods.base import Method, View, register, weight_rows


@dataclass(frozen=True)
class _FilterNorm(Method):
    unit, needs = "channel", "shape"

    combine: str = "sum"
    normalise: str = "mean"


@register
class L1Norm(_FilterNorm):
    """Filters with the smallest sum of absolute weights go first."""

    name, citation = "l1_norm", "li2017filters"

    def score(self, view: View) -> Scores:
        return view.per_channel(_l1_norms, self.combine).normalised(self.normalise)


def _l1_norms(rows: Tensor) -> Tensor:
    """Of a matrix' rows; a few at a time, for the absolute values of all of them take memory anew."""
    return torch.cat([part.abs().sum(1) for part in rows.tensor_split(max(1, rows.numel() // 1_000_000))])


@register
class L2Norm(_FilterNorm):
    """Filters with the smallest Euclidean norm go first."""

    name, citation = "l2_norm", "he2018sfp"

    def score(self, view: View) -> Scores:
        return view.per_channel(lambda rows: rows.norm(dim=1), self.combine).normalised(self.normalise)


@register
class GeometricMedian(_FilterNorm):
    """Filters nearest to all others go first: what they do, the others can do."""

    name, citation = "geometric_median", "he2019fpgm"

    def score(self, view: View) -> Scores:
        found = {name: self._distances(view, group) for name, group in view.sites.groups.items()}
        return Scores(found).normalised(self.normalise)

    def _distances(self, view: View, group: Group) -> Tensor:
        """Sums of the distances of a group's filters to the living ones, (group.size,): the dead lie at zero, and count not."""
        alive, parts = group.alive(view.alive), []
        for member in weight_rows(group):
            rows = view.parameter(member.parameter).movedim(member.dim, 0).flatten(1)
            living = torch.ones(len(rows), dtype=torch.bool)
            living[member.indices] = alive[member.channels]
            parts.append(member.per_channel(torch.cdist(rows, rows[living.to(rows.device)]).sum(1), group.size))
        return combine(parts, self.combine)
