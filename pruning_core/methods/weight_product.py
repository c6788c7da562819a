"""Weight products (wolfe2022ispasp): what makes a channel times what reads it, ``||W0[c, :]||_2 ||W1[:, c]||_2``."""

import torch

from pruning_core.masks import Scores
from pruning_core.methods.base import Method, View, reading_columns, register


@register
class WeightProduct(Method):
    """Channels with the smallest product of the norms of what makes them, W0, and what reads them, W1, go first."""

    name, citation = "weight_product", "wolfe2022ispasp"
    unit, needs = "channel", "shape"

    combine: str = "sum"
    normalise: str = "mean"

    def score(self, view: View) -> Scores:
        made = view.per_channel(lambda rows: rows.square().sum(1), "sum")
        found = {}
        for name, group in view.sites.groups.items():
            read = torch.zeros(group.size)
            for member in reading_columns(group):
                columns = view.parameter(member.parameter).movedim(member.dim, 0).flatten(1).square().sum(1)
                read = read + member.per_channel(columns, group.size).to(read.device, columns.dtype)
            found[name] = (made[name].cpu() * read).sqrt()
        return Scores(found).normalised(self.normalise)
