r"""SynFlow: data-free pruning that never cuts a network in two (Tanaka et al. 2020, tanaka2020synflow).

    R = 1^T f_|theta|(1),      score(w) = | w dR/dw |

f_|theta| is the network with the absolute values of all its parameters and buffers, fed with an image of ones. A
weight's score adds up the products of weights along all paths through it, so a layer's total score is the same in
every layer, and the last path of a layer never goes. For that the cut must be repeated: ``rounds`` times, each with
the same share of what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.checks import Constraints, Whole
from pruning_core.errors import Unprunable
from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.scores import Scores
from pruning_core.methods.base import Choice, Method, View, register
from pruning_core.methods.shared.absolute_network import absolute, flow
from pruning_core.methods.shared.rough_rounds import before_last
from pruning_core.models.modes import evaluating


@register
@dataclass(frozen=True)
class SynFlow(Method):
    """Weights on the weakest paths from inputs to outputs go first, in many rounds and without any data."""

    name = "synflow"
    citation = "tanaka2020synflow"
    needs = "shape"

    constraints = Constraints(rounds=Whole(at_least=1))

    rounds: int = 100

    def score(self, view: View) -> Scores:
        return Scores(synaptic_flow(absolute(view)))

    def choose(self, view: View, budget: Budget) -> Choice:
        view = absolute(view)
        masks = view.alive if budget.to is None else before_last(view, budget, self.rounds, synaptic_flow)
        return Choice(allocate(Scores(synaptic_flow(view)), budget, masks, view.sites))


def synaptic_flow(view: View) -> dict[str, Tensor]:
    """``w dR/dw`` of every weight in scope of a network of absolute values."""
    names = view.sites.weights
    parameters = [view.model.get_parameter(name).requires_grad_(True) for name in names]
    with evaluating(view.model), torch.enable_grad():
        r = flow(view)
        gradients = torch.autograd.grad(r, parameters, allow_unused=True)
    if not torch.isfinite(r):
        raise Unprunable(
            f"the flow through the absolute weights of {type(view.model).__name__} is beyond double precision."
        )
    with torch.no_grad():
        return {
            name: torch.zeros_like(w) if gradient is None else gradient.mul_(w)
            for name, w, gradient in zip(names, parameters, gradients, strict=True)
        }
