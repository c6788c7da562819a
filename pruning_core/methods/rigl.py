r"""RigL: sparse from the first step, with a mask that moves (Evci et al. 2020, evci2020rigl).

Start with random weights dead. After every dT of training, in each layer with a living weights:

    n = floor( a * alpha / 2 * (1 + cos(pi t / T_end)) )
    drop the n living weights of smallest |w|;    grow, of all that are not alive now, the n of largest |dL/dw|

dL/dw is the gradient of the dense network, taken before the drop. What grows starts at 0. A weight that was just dropped
may grow again, and is then left as it was; with nothing else dead, nothing changes. The number of living weights of a
layer never does.

Time is counted in cuts of the schedule here: cut i of a training is at t = i, and T_end is ``end``. The authors' code
(google-research/rigl) was read for what the formula leaves open: n is rounded down, grown weights get no momentum, and
what was dropped and grown at once keeps its value. It adds noise of 1e-5 to magnitudes, to break ties; here the lower
index stays. The gradient is taken in evaluation mode, as that of every sensitivity in this package, and without penalties.
"""

import math

import torch
from torch import Tensor

from pruning_core.checks import Constraints, Maybe, Real, Whole, check
from pruning_core.errors import BadInput
from pruning_core.masks import Budget, Masks, Scores, allocate
from pruning_core.methods.base import Choice, View, register
from pruning_core.methods.shared.elasticities import Sensitivity
from pruning_core.methods.shared.reading import largest


@register
class Rigl(Sensitivity):
    """Weights of small magnitude are exchanged for dead ones of large gradient, at a constant sparsity.

    Where the budget asks for more than is dead already, the cut is the random start: weights go by chance, spread over
    layers as the budget says, and nothing is exchanged. ``drop``: the fraction alpha. ``end``: T_end in cuts (None: one
    after the last). ``batches``: how many the gradient is averaged over; the paper takes that of one.
    """

    name, citation = "rigl", "evci2020rigl"
    spreads = "asked"
    revives = True
    constraints = Constraints(drop=Real(at_least=0, at_most=1), end=Maybe(Real(above=0)))

    batches: int = 1
    drop: float = 0.3
    end: float | None = None

    def fraction(self, i: int, n: int) -> float:
        """The fraction of a layer's living weights that cut ``i`` of ``n`` exchanges; 0 from T_end on."""
        check("the number of a cut", i, Whole(at_least=1))
        check("the number of cuts", n, Whole(at_least=i))
        time = i / (n + 1 if self.end is None else self.end)
        return self.drop / 2 * (1 + math.cos(math.pi * min(time, 1.0)))

    def score(self, view: View) -> Scores:
        """Random numbers: what the start keeps."""
        return view.random_scores(channels=False)

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if budget.below is not None:
            raise BadInput("RigL has no scores to compare with a threshold; give a sparsity.")

    def choose(self, view: View, budget: Budget) -> Choice:
        alive = Masks.dense(view.model, view.sites.weights) & view.alive
        start = allocate(self.score(view), budget, alive, view.sites)
        fraction = self.fraction(view.round, view.of)
        if start != alive or not fraction:
            return Choice(start)
        gradients, _ = self.gradients(view, view.sites.weights)
        weights = view.weights()
        moved = {n: exchange(weights[n].cpu(), g.cpu(), alive[n], fraction) for n, g in gradients.items()}
        changed = [name for name, mask in moved.items() if not torch.equal(mask, alive[name])]
        from_zero = {n: weights[n].masked_fill(~alive[n].to(weights[n].device), 0) for n in changed}
        return Choice(Masks(dict(alive) | moved), from_zero)


def exchange(weight: Tensor, gradient: Tensor, alive: Tensor, fraction: float) -> Tensor:
    """The mask of one layer after it dropped ``fraction`` of its living weights, rounded down, and grew as many.

    All tensors are of one shape. Of equal magnitudes, and of equal gradients, the lower index is the one alive afterwards.
    """
    living = alive.flatten()
    count = math.floor(fraction * int(living.sum()) + 1e-9)
    least = weight.flatten().abs().masked_fill(~living, math.inf)
    kept = living.clone()
    # From the end, so that of equal magnitudes the last ones go.
    kept[len(kept) - 1 - largest((-least).flip(0), count)] = False
    grown = largest(gradient.flatten().abs().masked_fill(kept, -math.inf), count)
    kept[grown] = True
    return kept.view(alive.shape)
