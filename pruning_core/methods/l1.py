r"""L1 and Lp penalties: training pulls weights to zero, size decides which ones go.

    L1 = sum over tensors of  sum |w + 1e-8|,        Lp = sum over tensors of  (sum |w + 1e-8|^p)^(1/p),   p = 0.2

The small shift keeps the gradient of Lp finite at zero; it is the one of SNIP-it's code (Verdenius et al. 2020). Lp with
p < 1 grows quickly with the number of weights: its strength must be far below that of L1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, OneOf, Real
from pruning_core.errors import Unprunable
from pruning_core.masks.masks import Masks
from pruning_core.masks.scores import Scores
from pruning_core.methods.base import Method, View, register

SHIFT = 1e-8


@dataclass(frozen=True)
class _Norm(Method):
    citation = "tibshirani1996lasso"

    constraints = Constraints(over=OneOf("all", "weights", kind="part of the parameters"))

    over: Literal["all", "weights"] = "all"

    def _living(self, model: nn.Module, alive: Masks) -> Iterator[Tensor]:
        """What is penalised, shifted, without dead entries: all parameters, or those with two or more dimensions."""
        found = False
        for name, parameter in model.named_parameters():
            if self.over == "all" or parameter.dim() >= 2:
                found = True
                mask = alive.get(name)
                yield (parameter if mask is None else parameter[mask.to(parameter.device)]) + SHIFT
        if not found:
            what = "parameter" if self.over == "all" else "weight matrix"
            raise Unprunable(f"{type(model).__name__} has no {what} that could be penalised.")

    def score(self, view: View) -> Scores:
        return Scores({name: weight.abs() for name, weight in view.weights().items()})


@register
@dataclass(frozen=True)
class L1(_Norm):
    """Trained with the sum of absolute values as a penalty, the smallest weights go.

    ``over``: all parameters, biases and norms included, or weight matrices only.
    """

    name = "l1"

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of absolute values of what is alive."""
        return torch.stack([tensor.abs().sum() for tensor in self._living(model, alive)]).sum()


@register
@dataclass(frozen=True)
class Lp(_Norm):
    """Trained with the sum of the tensors' p-norms, p < 1, the smallest weights go."""

    name = "lp"

    constraints = Constraints(p=Real(above=0, infinite=True))

    p: float = 0.2

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of the p-norms of what is alive in each tensor."""
        return torch.stack([torch.linalg.vector_norm(tensor, self.p) for tensor in self._living(model, alive)]).sum()
