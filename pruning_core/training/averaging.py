"""An exponential moving average of a network's weights over the steps of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Real, check


class WeightAverage:
    """``a <- b a + (1 - b) w`` after each step, from zeros; ``w_average = a / (1 - b^steps)`` corrects for the start.

    ``factor`` b lies in (0, 1). Buffers, such as the running statistics of norms, are not averaged.
    """

    def __init__(self, factor: float):
        self.factor, self.steps = check("the factor of a moving average", factor, Real(above=0, below=1)), 0
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Count the weights as they are now as one step."""
        parameters = dict(model.named_parameters())
        if not self.sums:
            self.sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        now = [parameters[name].detach() for name in self.sums]
        torch._foreach_lerp_(list(self.sums.values()), now, 1 - self.factor)
        self.steps += 1

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Replace the weights of ``model`` by their average; nothing before the first step."""
        for name, parameter in model.named_parameters():
            if name in self.sums:
                parameter.copy_(self.sums[name] / (1 - self.factor**self.steps))

    def slice(self, kept: Any, names: set[str]) -> None:
        """Go on with the smaller network that a removal left; ``kept.slice(name, tensor)`` cuts a tensor."""
        self.sums = {name: kept.slice(name, tensor) for name, tensor in self.sums.items() if name in names}

    def load(self, sums: Mapping[str, Tensor], steps: int, device: torch.device) -> None:
        """Take over sums and steps that were saved."""
        self.sums = {name: tensor.to(device, copy=True) for name, tensor in sums.items()}
        self.steps = steps
