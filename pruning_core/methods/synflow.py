r"""SynFlow: data-free pruning that never cuts a network in two (Tanaka et al. 2020, tanaka2020synflow).

    R = 1^T f_|theta|(1),      score(w) = | w dR/dw |

f_|theta| is the network with the absolute values of all its parameters and buffers, fed with an image of ones. A
weight's score adds up the products of weights along all paths through it, so a layer's total score is the same in
every layer, and the last path of a layer never goes. For that the cut must be repeated: ``rounds`` times, each with
the same share of what is left.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pruning_core.checks import Constraints, Whole
from pruning_core.errors import BadInput, Unprunable
from pruning_core.masks import Budget, Masks, Scores, allocate, fraction_after
from pruning_core.masks.reports import count_removed
from pruning_core.methods.base import Choice, Method, View, register
from pruning_core.models.calls import tensors_of, tried
from pruning_core.models.modes import copied, evaluating

SAMPLE = 2**18  # scores that a threshold between the rounds is read from


@register
class SynFlow(Method):
    """Weights on the weakest paths from inputs to outputs go first, in many rounds and without any data.

    ``rounds``: into how many cuts the one that was asked for is divided.
    """

    name, citation = "synflow", "tanaka2020synflow"
    spreads = "asked"
    needs = "shape"
    constraints = Constraints(rounds=Whole(at_least=1))

    rounds: int = 100

    def score(self, view: View) -> Scores:
        return Scores(synaptic_flow(absolute(view)))

    def choose(self, view: View, budget: Budget) -> Choice:
        view = absolute(view)
        masks = view.alive if budget.to is None else before_last(view, budget, self.rounds)
        return Choice(allocate(Scores(synaptic_flow(view)), budget, masks, view.sites))


def synaptic_flow(view: View) -> dict[str, Tensor]:
    """``w dR/dw`` of every weight in scope of a network of absolute values."""
    names = view.sites.weights
    parameters = [view.model.get_parameter(name).requires_grad_(True) for name in names]
    with evaluating(view.model), torch.enable_grad():
        r = flow(view)
        gradients = torch.autograd.grad(r, parameters, materialize_grads=True)
    if not torch.isfinite(r):
        raise Unprunable(f"the flow through absolute weights of {type(view.model).__name__} exceeds double precision.")
    return {name: dr.mul_(w.detach()) for name, w, dr in zip(names, parameters, gradients, strict=True)}


def absolute(view: View) -> View:
    """Absolute values of everything, in place: whoever called the method puts the network back. Where the flow through them
    is beyond the network's precision, a twin in double precision instead."""
    with torch.no_grad():
        for tensor in [*view.model.parameters(), *view.model.buffers()]:
            if tensor.is_floating_point():
                tensor.abs_()
    view.alive.apply_(view.model)
    if view.example_input is None:
        raise BadInput("SynFlow needs example_input (or batches), to know the shape of an image of ones.")
    with evaluating(view.model), torch.no_grad():
        if torch.isfinite(flow(view)):
            return view
    ones = tuple(one.double() if one.is_floating_point() else one for one in _ones(view.example_input))
    return replace(view, model=copied(view.model).double(), example_input=ones)


def flow(view: View) -> Tensor:
    """The sum of all that the network puts out for an input of ones."""
    outputs = tensors_of(tried(view.model, _ones(view.example_input)))
    if not outputs:
        raise BadInput("SynFlow sums what the network puts out, and this one puts out no tensor.")
    return torch.stack([output.sum() for output in outputs]).sum()


def _ones(example) -> tuple[Tensor, ...]:
    firsts = [one[:1] for one in tensors_of(example)]
    return tuple(torch.ones_like(one) if one.is_floating_point() else one for one in firsts)


def before_last(view: View, budget: Budget, rounds: int) -> Masks:
    """What ``rounds - 1`` geometric cuts leave, each by the flow through what the last one left; the network is changed.

    Should they have gone beyond the budget, everything that was alive before them.
    """
    assert budget.to is not None
    removed, total = count_removed(budget.of, view.alive, view.sites)
    start, masks = min(removed / total, budget.to), view.alive
    plain = budget.across == "global" and budget.of == "weights"
    for i in range(1, rounds):
        target = fraction_after("geometric", i, rounds, budget.to, start)
        if plain:
            _cut_roughly(view, synaptic_flow(view), target)
        else:
            masks = allocate(Scores(synaptic_flow(view)), replace(budget, to=target), masks, view.sites)
            masks.apply_(view.model)
    if plain:
        masks = view.alive & Masks.of_nonzero(view.model, view.sites.weights)
    removed, total = count_removed(budget.of, masks, view.sites)
    return masks if removed <= budget.to * total + 0.5 else view.alive


@torch.no_grad()
def _cut_roughly(view: View, scores: Mapping[str, Tensor], target: float) -> None:
    """Zero the weights of least score, in place, until about ``target`` of all is zero; no layer loses its last one.

    The next round starts from what really went, and the last round of all is exact: sorting millions of scores a hundred
    times would take longer than to compute them.
    """
    step = max(1, sum(score.numel() for score in scores.values()) // SAMPLE)
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
