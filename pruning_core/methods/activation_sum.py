"""Activation sums (wolfe2022ispasp): ``score(j) = mu(H)_j``, the sum over samples and positions of hidden activations H."""

import torch
from torch import Tensor

from pruning_core.checks import Constraints, OneOf
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.hidden import ACTIVATIONS, Hidden
from pruning_core.methods.shared.layer_by_layer import LayerByLayer
from pruning_core.methods.shared.reading import largest


@register
class ActivationSum(LayerByLayer):
    """Keeps the channels with the largest activations: i-SpaSP without its residual, and the same where it keeps half.

    ``activation``: the "sum", the sum of "absolute" values, or the "norm" of a channel's activations.
    """

    name, citation = "activation_sum", "wolfe2022ispasp"
    constraints = Constraints(activation=OneOf(*ACTIVATIONS))

    activation: str = "sum"

    def select(self, view: View, hidden: Hidden, s: int) -> tuple[Tensor, dict[str, Tensor]]:
        sizes = hidden.activations(self.activation)
        return largest(sizes.masked_fill(~hidden.alive, -torch.inf), s), {}
