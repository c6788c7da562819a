r"""SNAP and SNAP-it: the elasticity of the loss to a whole channel (Verdenius et al. 2020, verdenius2020snipit).

    e(j) = | 1 / L * dL/dc_j |,      c_j = 1 multiplies output j of a layer, before its norm

It equals the signed sum of the elasticities of the channel's weights, since the output is linear in them
(shared/elasticities.py), so the weights of a channel may matter much one by one and nothing together.

SNAP-it repeats the cut on the network that is left. The official code cannot do residual networks; here the layers
that make one channel together share one gate.
"""

from pruning_core.masks import Scores
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.elasticities import Sensitivity, gate_elasticities, statistic_loss


@register
class Snap(Sensitivity):
    """Channels whose relative change moves the loss least go first: |c dL/dc| for a gate c on the channel.

    ``combine``: how the signed elasticities of several producers of one channel become one ("sum": one shared gate).
    """

    name, citation = "snap", "verdenius2020snipit"
    unit = "channel"
    combine: str = "sum"

    def shrinks(self) -> bool:
        return True

    def score(self, view: View) -> Scores:
        loss = statistic_loss(self.loss, view.loss)
        batches = view.batches or ()
        view.note_unread(self.batches)
        found = gate_elasticities(view.model, view.sites.groups, batches, loss, self.batches, self.combine)
        view.note_zeros(found)
        return Scores(found)
