r"""SNIP and SNIP-it: the elasticity of the loss to a weight (Lee et al. 2019, lee2019snip; Verdenius et al. 2020).

    e(w) = | w / L * dL/dw |,      L = mean loss over a few batches, network in evaluation mode

The absolute value is taken after the sum over batches. L is the same for every weight, so it changes no ranking; it
makes scores of different networks and moments comparable.

SNIP is one cut by this score before training. SNIP-it is the same score in several cuts, each on the network that the
last one left: ``prune(..., schedule="snip_it", rounds=7)``, or the recipes ``snip_it`` and ``snip_it_during``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.errors import known_name
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import register
from pruning_core.methods.shared.elasticities import LOSSES
from pruning_core.methods.shared.elasticities import loss_gradients
from pruning_core.methods.shared.elasticities import statistic_loss
from pruning_core.methods.shared.elasticities import weight_elasticities
from pruning_core.scores import Scores


@dataclass(frozen=True)
class Sensitivity(Method):
    """What the methods of SNIP-it share: a loss, and the number of batches it is averaged over.

    ``loss``: "training", or "nll_logits" as in the official code (see shared/elasticities.py).
    """

    needs = "labels"

    batches: int = 5
    loss: Literal["training", "nll_logits"] = "training"

    def __post_init__(self):
        if isinstance(self.batches, bool) or not isinstance(self.batches, int) or self.batches < 1:
            raise BadInput(f"the number of batches of a statistic is a whole number from 1, not {self.batches!r}.")
        known_name("loss of the statistic", self.loss, LOSSES)

    def gradients(self, view: View, names: Iterable[str], training: bool = False) -> tuple[dict[str, Tensor], float]:
        """Gradients of the loss by the parameters ``names``, and the loss."""
        loss = statistic_loss(self.loss, view.loss)
        return loss_gradients(view.model, names, view.batches or (), loss, self.batches, training)


@register
@dataclass(frozen=True)
class Snip(Sensitivity):
    """Weights whose relative change moves the loss least go first: |w dL/dw|."""

    name = "snip"
    citation = "lee2019snip"

    def score(self, view: View) -> Scores:
        return Scores(weight_elasticities(view.model, *self.gradients(view, view.sites.weights)))
