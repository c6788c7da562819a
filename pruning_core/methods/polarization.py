r"""Polarisation: scales are driven apart, to zero or to one common value (Zhuang et al. 2020, zhuang2020polarization).

    penalty = sum_i ( t |gamma_i| - |gamma_i - mean| ),        0 <= gamma_i <= a,        score(c) = |gamma_c|

The mean is one over all batch norms of the network, so channels are coupled: the second term rewards distance from it. Of
the pure penalty's minimum a share of 1/2 - t/4 sits at a, for -2 <= t <= 2, and the rest at 0. Scales are clamped after
every step. The paper's code then cuts each layer where the histogram of its scales, 100 bins on [0, 1], has its first local
minimum from the left: ``threshold="histogram"``.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, Maybe, OneOf, Real
from pruning_core.errors import BadInput, BadType
from pruning_core.masks import Budget, Masks, Scores, allocate
from pruning_core.methods.base import Choice, View, register
from pruning_core.methods.shared.batch_norm_scales import BatchNormScale, living_scales
from pruning_core.methods.shared.swapping import swap_norms
from pruning_core.models.calls import raised
from pruning_core.models.layers.norms import ClampedBatchNorm1d, ClampedBatchNorm2d

BINS = 100
DOUBTFUL = 0.2  # a threshold above this deserves a second look: the histogram has hardly polarised


@register
class Polarization(BatchNormScale):
    """Trained with a penalty that drives batch-norm scales to zero or to one value, the channels with the smallest go.

    ``t``: weight of the L1 term, the larger the fewer channels survive. ``upper``: where scales are clamped. ``start``: the
    scale that training starts from; None leaves what the network has. ``threshold``: "budget" cuts to a sparsity,
    "histogram" finds each layer's own gap; its Budget gives ``below`` instead of a sparsity, the highest threshold that may
    be used.
    """

    name, citation = "polarization", "zhuang2020polarization"
    spreads = "asked"
    constraints = Constraints(
        t=Real(), upper=Real(above=0), start=Maybe(Real(above=0)), threshold=OneOf("budget", "histogram")
    )

    t: float = 1.4
    upper: float = 1.0
    start: float | None = 0.5
    threshold: Literal["budget", "histogram"] = "budget"

    def __post_init__(self):
        super().__post_init__()
        if self.start is not None and self.start > self.upper:
            raise BadInput(f"start={self.start:g} lies above the bound of the scales, upper={self.upper:g}.")

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Swap ordinary batch norms for ones clamped to [0, upper], their scales at ``start``; in place."""

        def clamped(kind: Any, norm: nn.Module) -> nn.Module:
            made = kind.from_plain(norm, self.upper)
            if self.start is not None:
                nn.init.constant_(made.weight, self.start)
            return made

        return swap_norms(super().prepare(model, example_input), ClampedBatchNorm1d, ClampedBatchNorm2d, clamped)

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum over all batch norms of t |gamma| - |gamma - mean|; dead channels count nothing, in the mean neither."""
        return polarising(living_scales(model, alive, self.name, sigmoid=False), self.t).sum()

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if self.threshold == "histogram" and budget.below is None:
            raise BadInput(
                "threshold='histogram' finds how much goes by itself: give Budget(below=0.2), the highest threshold that "
                "may be used, and no sparsity."
            )

    def choose(self, view: View, budget: Budget) -> Choice:
        if self.threshold == "budget":
            return super().choose(view, budget)
        return _cut_at_gaps(view, self.score(view), budget)


def _cut_at_gaps(view: View, scores: Scores, budget: Budget) -> Choice:
    """Each layer cut at its own gap, or at the budget's threshold where the gap lies above."""
    highest = budget.below
    assert highest is not None
    living = {name: score[view.sites.groups[name].alive(view.alive).to(score.device)] for name, score in scores.items()}
    gaps = {name: histogram_threshold(score) if len(score) else None for name, score in living.items()}
    cuts = {name: -1.0 if gap is None else min(gap, highest) for name, gap in gaps.items()}
    # What scores above its layer's threshold is above 0 now.
    shifted = Scores({name: score.double() - cuts[name] for name, score in scores.items()})
    above = replace(budget, below=0.0)
    remarks = []
    for name, gap in gaps.items():
        if gap is None:
            remarks.append(f"{name} stays whole: the histogram of its scales has no gap")
        elif gap > DOUBTFUL:
            remarks.append(f"the threshold of {name} is high: {gap:.2f}")
    return Choice(allocate(shifted, above, view.alive, view.sites), {}, tuple(remarks))


def polarising(gamma: Tensor, t: float) -> Tensor:
    """t |gamma_i| - |gamma_i - mean(gamma)| for each entry of ``gamma``; the mean takes part in the gradient."""
    return t * gamma.abs() - (gamma - gamma.mean()).abs()


def histogram_threshold(scores: Tensor) -> float | None:
    """Left edge of the bin at the first local minimum, from the left, of the histogram of ``scores``; None without one.

    ``scores`` is a vector; 100 bins on [0, 1], what lies outside is not counted. A bin is a minimum when it holds no more
    than the one before it and no more than the next, so it may begin a plateau. Source: official code of Zhuang et al. 2020.

    >>> histogram_threshold(torch.tensor([0.001, 0.002, 0.011, 0.5, 0.6]).double())
    0.02
    """
    if not isinstance(scores, Tensor) or not scores.is_floating_point() or scores.dim() != 1:
        raise BadType("the scores of a histogram must be a floating-point vector.")
    if not bool(torch.isfinite(scores).all()):
        raise BadInput("the scores of a histogram must be finite.")
    counts, edges = np.histogram(raised(scores.detach()).cpu().numpy(), bins=BINS, range=(0, 1))
    steps = np.diff(counts)
    minima = np.flatnonzero((steps[:-1] <= 0) & (steps[1:] >= 0))
    return float(edges[minima[0] + 1]) if len(minima) else None
