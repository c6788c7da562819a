r"""Efficient ConvNets: filters of least L1 norm go, the same fraction in every layer (Li et al. 2017, li2017filters).

    score(c) = sum over inputs i and kernel entries of |W[c, i]|

The paper knows two ways through the layers. *Independent*: each layer is ranked as it was trained. *Greedy*: layers are
taken from the front to the back, and a filter gets no credit for inputs that were cut in the layers before. The code of
SNIP-it takes the first.
"""

import torch
from torch import Tensor

from pruning_core.masks import Budget, Scores, expand
from pruning_core.methods.base import Choice, Method, View, register
from pruning_core.methods.shared.reading import largest
from pruning_core.methods.shared.within_layers import channel_counts


@register
class EfficientConvNets(Method):
    """In every layer the filters with the smallest sum of absolute weights go.

    ``greedy`` leaves inputs that were cut out of the norms; ``combine``: how the norms of several producers become one.
    """

    name, citation = "efficient_convnets", "li2017filters"
    spreads = "layers"
    unit, needs = "channel", "shape"
    greedy: bool = False
    combine: str = "sum"

    def score(self, view: View) -> Scores:
        """Norms on the network as it is: what the choice of the first layer sees."""
        view.alive.apply_(view.model)
        return view.per_channel(_l1, self.combine)

    def choose(self, view: View, budget: Budget) -> Choice:
        kept, remarks = channel_counts(view, budget)
        masks = view.alive
        masks.apply_(view.model)
        for name, group in view.sites.groups.items():
            if self.greedy:  # the caller puts the network back
                masks.apply_(view.model)
            norms = view.of_group(group, _l1, self.combine)
            norms = torch.where(group.alive(masks).to(norms.device), norms, -1.0)
            chosen = torch.isin(torch.arange(group.size), largest(norms, kept[name]).cpu())
            masks = masks & expand({name: chosen}, view.sites.groups, view.sites.shapes)
        return Choice(masks, {}, remarks)


def _l1(rows: Tensor) -> Tensor:
    return rows.abs().sum(1)
