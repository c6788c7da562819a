r"""Weight products: what makes a channel times what reads it (a baseline of Wolfe and Kyrillidis 2022, wolfe2022ispasp).

    score(c) = ||W0[c, :]||_2 ||W1[:, c]||_2

W0 are the weights that produce channel c, W1 those that read it.
"""

from dataclasses import dataclass

import torch

from pruning_core.masks import Scores
from pruning_core.methods.base import Method, View, register


@register
@dataclass(frozen=True)
class WeightProduct(Method):
    """Channels with the smallest product of what makes them and what reads them: ||W0[c, :]||_2 ||W1[:, c]||_2."""

    name = "weight_product"
    citation = "wolfe2022ispasp"
    unit = "channel"
    needs = "shape"

    combine: str = "sum"
    normalise: str = "mean"

    def score(self, view: View) -> Scores:
        made = view.per_channel(lambda rows: rows.square().sum(1), "sum")
        found = {}
        for name, group in view.sites.groups.items():
            read = torch.zeros(group.size)
            for member in group.consumes:
                if not member.is_buffer:
                    columns = view.parameter(member.parameter).movedim(member.dim, 0).flatten(1).square().sum(1)
                    read = read + member.per_channel(columns, group.size).to(read.device, columns.dtype)
            found[name] = (made[name].cpu() * read).sqrt()
        return Scores(found).normalised(self.normalise)
