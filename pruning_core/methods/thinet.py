r"""ThiNet (Luo et al. 2017, luo2017thinet): channels whose removal changes the next layer's outputs least.

With c_j what channel j adds to the output of the layer that reads it, the set T to remove grows one by one by the channel
that keeps

    || sum_{j in T} c_j ||^2        (sum over samples, positions and filters)

smallest. The paper samples (sample, position, filter) triples; here the inner products <c_i, c_j> over all of them are
summed in one pass, so nothing is left to chance. The baseline in the code of SiPP and PFP ranks by the same greedy order but
*keeps* what it finds first; the chapter shows what that costs.
"""

import torch
from torch import Tensor

from pruning_core.methods.base import View, register
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.layer_by_layer import LayerByLayer
from pruning_core.methods.shared.least_squares import contributions


@register
class ThiNet(LayerByLayer):
    """Removes, one by one, the channel with which what is lost of the next layer's output stays smallest.

    ``reference=True``: keeps these channels instead, as the baseline of the PFP code does.
    """

    name, citation = "thinet", "luo2017thinet"

    reference: bool = False

    def select(self, view: View, hidden: Hidden, s: int) -> tuple[Tensor, dict[str, Tensor]]:
        count = s if self.reference else int(hidden.alive.sum()) - s
        found = least_output(contributions(hidden), hidden.alive, count)
        if self.reference:
            return found, {}
        left = hidden.alive & ~torch.isin(torch.arange(hidden.size), found)
        return left.nonzero().flatten(), {}


def least_output(inner: Tensor, alive: Tensor, count: int) -> Tensor:
    """The ``count`` channels of a greedy set T with the smallest ``sum_ij <c_i, c_j>``; ``inner`` holds the products."""
    chosen: list[int] = []
    added = inner.diagonal().clone()  # what each channel would add to the sum
    added[~alive] = torch.inf
    for _ in range(count):
        k = int(added.argmin())
        chosen.append(k)
        added += 2 * inner[k]
        added[k] = torch.inf
    return torch.tensor(chosen, dtype=torch.long)
