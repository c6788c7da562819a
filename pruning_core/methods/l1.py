r"""L1 and Lp penalties: training pulls weights to zero, size decides which ones go.

    L1 = sum over tensors of  sum |w + 1e-8|,        Lp = sum over tensors of  (sum |w + 1e-8|^p)^(1/p),   p = 0.2

The small shift keeps the gradient of Lp finite at zero; it is the one of SNIP-it's code (Verdenius et al. 2020). Lp with
p < 1 grows quickly with the number of weights: its strength must be far below that of L1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, OneOf, Real
from pruning_core.errors import Unprunable
from pruning_core.masks import Masks, Scores
from pruning_core.methods.base import Method, View, register
from pruning_core.methods.shared.penalties import pull_to_zero_, survivors

SHIFT = 1e-8


@dataclass(frozen=True)
class _Norm(Method):
    """``over``: the penalty sums over all parameters, biases and norms included, or over weight matrices only."""

    citation = "tibshirani1996lasso"
    constraints = Constraints(over=OneOf("all", "weights", kind="part of the parameters"))

    over: Literal["all", "weights"] = "all"

    def norm(self, tensor: Tensor) -> Tensor:
        """What the living entries of one tensor add to the penalty."""
        raise NotImplementedError

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum over tensors of the norms of what is alive, shifted: all parameters, or those of two or more dimensions."""
        named = self.penalised(model).items()
        return torch.stack([self.norm(survivors(parameter, name, alive) + SHIFT) for name, parameter in named]).sum()

    def penalised(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that the penalty sums over, by name; raises Unprunable if there are none."""
        found = {n: p for n, p in model.named_parameters() if self.over == "all" or p.dim() >= 2}
        if not found:
            what = "parameter" if self.over == "all" else "weight matrix"
            raise Unprunable(f"{type(model).__name__} has no {what} that could be penalised.")
        return found

    def score(self, view: View) -> Scores:
        return Scores({name: weight.abs() for name, weight in view.weights().items()})


@register
class L1(_Norm):
    """Trained with the sum of absolute values as a penalty, the smallest weights go."""

    name, absolute = "l1", True

    def norm(self, tensor: Tensor) -> Tensor:
        return tensor.abs().sum()

    def pull_(self, model: nn.Module, alive: Masks, strength: float) -> None:
        pull_to_zero_(self.penalised(model).items(), alive, strength, SHIFT)


@register
class Lp(_Norm):
    """Trained with the sum of the tensors' p-norms, p < 1, the smallest weights go.

    ``p``: the smaller, the less the penalty minds large weights and the more it minds small ones.
    """

    name = "lp"
    constraints = Constraints(p=Real(above=0, infinite=True))

    p: float = 0.2

    def norm(self, tensor: Tensor) -> Tensor:
        return torch.linalg.vector_norm(tensor, self.p)
