r"""Local imitation: rebuild the next layer's output with few channels of equal weights (after Ye et al. 2020, ye2020greedy).

Of N channels, those chosen so far are each multiplied by N / n, n being their number. In a step the channel k joins that
makes smallest

    ||U - N / (n + 1) sum_j c_j||^2,

c_j = W1[:, j] H[j, :] being what channel j adds to the output U = sum_j c_j of the layer that reads it.
"""

import torch
from torch import Tensor

from pruning_core.methods.base import View, register
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.layer_by_layer import LayerByLayer, rescaled
from pruning_core.methods.shared.least_squares import contributions


@register
class Imitation(LayerByLayer):
    """Adds, one by one, the channel with which the reading layer's output comes nearest to the dense one.

    ``rescale`` leaves the factor N / n in the reading layer.
    """

    name, citation = "imitation", "ye2020greedy"

    rescale: bool = True

    def select(self, view: View, hidden: Hidden, s: int) -> tuple[Tensor, dict[str, Tensor]]:
        inner = contributions(hidden)
        alive = hidden.alive
        total = int(alive.sum())
        towards = inner @ alive.double()  # <c_k, U>
        chosen: list[int] = []
        with_chosen = torch.zeros_like(towards)  # <c_k, sum of the chosen>
        square = 0.0  # ||sum of the chosen||^2
        for n in range(s):
            factor = total / (n + 1)
            gain = factor**2 * (square + 2 * with_chosen + inner.diagonal())
            error = gain - 2 * factor * (towards[chosen].sum() + towards)
            error[~alive] = torch.inf
            error[chosen] = torch.inf
            k = int(error.argmin())
            square += float(2 * with_chosen[k] + inner[k, k])
            with_chosen += inner[k]
            chosen.append(k)
        return torch.tensor(chosen), rescaled(hidden, total / s) if self.rescale else {}
