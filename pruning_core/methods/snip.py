r"""SNIP and SNIP-it: the elasticity of the loss to a weight (Lee et al. 2019, lee2019snip; Verdenius et al. 2020).

    e(w) = | w / L * dL/dw |,      L = mean loss over a few batches, network in evaluation mode

The absolute value is taken after the sum over batches. L is the same for every weight, so it changes no ranking; it
makes scores of different networks and moments comparable.

SNIP is one cut by this score before training. SNIP-it is the same score in several cuts, each on the network that the
last one left: ``prune(..., schedule="snip_it", rounds=7)``, or the recipes ``snip_it`` and ``snip_it_during``.
"""

from pruning_core.masks import Scores
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.elasticities import Sensitivity, weight_elasticities


@register
class Snip(Sensitivity):
    """Weights whose relative change moves the loss least go first: |w dL/dw|."""

    name, citation = "snip", "lee2019snip"

    def score(self, view: View) -> Scores:
        return Scores(weight_elasticities(view.model, *self.gradients(view, view.sites.weights)))
