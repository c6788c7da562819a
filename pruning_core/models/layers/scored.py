"""Layers that train which of their weights take part, while the weights stand still."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pruning_core.checks import checked
from pruning_core.errors import BadInput


@checked
class Scored(nn.Module):
    """A convolution or linear layer that uses only those of its weights whose score is above one half.

    ``scores`` has the weight's shape, starts uniform in [0, 1) of torch's global random state, and is clamped to [0, 1]
    after every step. Rounding it has no gradient, so the backward pass acts as if there were none (straight through): the
    gradient on a score is the weight times the gradient on what the layer uses. ``to_plain()`` gives the layer with what
    is not used set to zero.

    >>> scored = Scored(nn.Linear(2, 1))
    >>> scored(torch.zeros(3, 2)).shape
    torch.Size([3, 1])
    """

    decays = False  # decay would be a penalty in disguise

    layer: Any

    def __init__(self, layer: nn.Module):
        super().__init__()
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            raise BadInput(f"scores are put on a layer with a weight matrix, not on a {type(layer).__name__}.")
        self.layer = layer
        self.scores = nn.Parameter(torch.rand(weight.shape).to(weight))

    def used(self) -> Tensor:
        """1 where the score is above one half, else 0; the gradient goes to the scores unchanged."""
        rounded = (self.scores.detach() > 0.5).to(self.scores)
        return rounded + (self.scores - self.scores.detach())

    def forward(self, input: Tensor) -> Tensor:
        return functional_call(self.layer, {"weight": self.layer.weight * self.used()}, (input,))

    @torch.no_grad()
    def project_(self) -> None:
        """Put every score back into [0, 1]."""
        self.scores.clamp_(0, 1)

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        """The layer itself, its unused weights set to zero."""
        self.layer.weight.mul_(self.used())
        return self.layer
