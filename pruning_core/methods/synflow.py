r"""SynFlow: data-free pruning that never cuts a network in two (Tanaka et al. 2020, tanaka2020synflow).

    R = 1^T f_|theta|(1),      score(w) = | w dR/dw |

f_|theta| is the network with the absolute values of all its parameters and buffers, fed with an image of ones. A
weight's score adds up the products of weights along all paths through it, so a layer's total score is the same in
every layer, and the last path of a layer never goes. For that the cut must be repeated: ``rounds`` times, each with
the same share of what is left.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor

from pruning_core.budgets import Budget
from pruning_core.budgets import allocate
from pruning_core.checks import Constraints
from pruning_core.checks import Whole
from pruning_core.errors import BadInput
from pruning_core.errors import Unprunable
from pruning_core.masks import Masks
from pruning_core.methods.base import Choice
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import register
from pruning_core.modes import evaluating
from pruning_core.reports import count_removed
from pruning_core.schedules import fraction_after
from pruning_core.scores import Scores

SAMPLE = 2**18  # scores that a threshold between the rounds is read from


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
        return self._flow(self._linearised(view))

    def choose(self, view: View, budget: Budget) -> Choice:
        view = self._linearised(view)
        if budget.to is None:
            return Choice(allocate(self._flow(view), budget, view.alive, view.sites))
        removed, total = count_removed(budget.of, view.alive, view.sites)
        start, masks = min(removed / total, budget.to), view.alive
        plain = budget.across == "global" and budget.of == "weights"
        for i in range(1, self.rounds):
            target = fraction_after("geometric", i, self.rounds, budget.to, start)
            if plain:
                self._cut_roughly(view, target)
            else:
                masks = allocate(self._flow(view), replace(budget, to=target), masks, view.sites)
                masks.apply_(view.model)
        if plain:
            masks = view.alive & Masks.of_nonzero(view.model, view.sites.weights)
        return Choice(allocate(self._flow(view), budget, _not_beyond(masks, view, budget), view.sites))

    @torch.no_grad()
    def _cut_roughly(self, view: View, target: float) -> None:
        """Zero the weights of least flow, in place, until about ``target`` of all is zero; no layer loses its last one.

        The threshold comes from a sample of the scores; the next round starts from what really went, and the last
        round of all is exact. Sorting millions of scores a hundred times would take longer than the flow.
        """
        scores = self._scores(view)
        total = sum(score.numel() for score in scores.values())
        step = max(1, total // SAMPLE)
        sample = torch.cat([score.flatten()[::step] for score in scores.values()])
        zero = int(target * len(sample))
        if zero < 1 or zero > len(sample) - 1:
            return
        threshold = sample.kthvalue(zero).values
        for name, score in scores.items():
            parameter = view.model.get_parameter(name)
            # The sample answers for nearly every layer that something in it stays; only the others are looked through.
            if score.flatten()[::step].max() > threshold or score.max() > threshold:
                parameter.mul_(score.gt_(threshold))
            else:
                parameter.mul_(score == score.max())

    def _linearised(self, view: View) -> View:
        """Absolute values of everything, in place: whoever called us puts the network back. Where the flow through them is
        beyond the network's precision, a twin in double precision instead."""
        with torch.no_grad():
            for tensor in [*view.model.parameters(), *view.model.buffers()]:
                if tensor.is_floating_point():
                    tensor.abs_()
        view.alive.apply_(view.model)
        if view.example_input is None:
            raise BadInput("SynFlow needs example_input (or batches), to know the shape of an image of ones.")
        with evaluating(view.model), torch.no_grad():
            if torch.isfinite(_total(view.model(*_ones(view.example_input)))):
                return view
        twin = copy.deepcopy(view.model).double()
        return replace(view, model=twin, example_input=_double(view.example_input))

    def _flow(self, view: View) -> Scores:
        return Scores(self._scores(view))

    @staticmethod
    def _scores(view: View) -> dict[str, Tensor]:
        names = view.sites.weights
        parameters = [view.model.get_parameter(name).requires_grad_(True) for name in names]
        with evaluating(view.model), torch.enable_grad():
            flow = _total(view.model(*_ones(view.example_input)))
            found = torch.autograd.grad(flow, parameters, allow_unused=True)
        if not torch.isfinite(flow):
            raise Unprunable(
                f"the flow through the absolute weights of {type(view.model).__name__} is beyond double precision."
            )
        with torch.no_grad():
            return {
                name: torch.zeros_like(p) if g is None else g.mul_(p)
                for name, p, g in zip(names, parameters, found, strict=True)
            }


def _not_beyond(masks: Masks, view: View, budget: Budget) -> Masks:
    """What the rounds left alive, or everything that was alive before them, should they have gone beyond the target."""
    removed, total = count_removed(budget.of, masks, view.sites)
    return masks if removed <= budget.to * total + 0.5 else view.alive  # type: ignore[operator]


def _double(example):
    if isinstance(example, tuple):
        return tuple(_double(each) for each in example)
    return example.double() if example.is_floating_point() else example


def _ones(example):
    if isinstance(example, tuple):
        return tuple(part for each in example for part in _ones(each))
    one = example[:1]
    return (torch.ones_like(one) if one.is_floating_point() else one,)


def _total(output) -> Tensor:
    if isinstance(output, Tensor):
        return output.sum()
    parts = output.values() if hasattr(output, "values") else output
    return torch.stack([_total(part) for part in parts if part is not None]).sum()
