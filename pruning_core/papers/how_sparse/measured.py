"""Limits that were measured: of a sweep over removed fractions, and how far apart two sets of weights are."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pruning_core.checks import Maybe, Real, Whole, check, doubles
from pruning_core.errors import BadInput


class ActualLimits(NamedTuple):
    """The largest removed fraction that still was good enough, by three definitions; None where no fraction was."""

    strict_last: float | None
    within_margin: float | None
    within_epsilon: float | None


def actual_limits(
    sparsities: Any,
    accuracies: Any,
    train_losses: Any = None,
    *,
    margin: float = 1.0,
    epsilon: float | None = None,
    base_accuracy: float | None = None,
    base_loss: float | None = None,
) -> ActualLimits:
    """Measured limits of a sweep over removed fractions: (points,) each, in any order.

    ``strict_last``: the last fraction with an accuracy strictly above the base (the official definition, which noise
    decides). ``within_margin``: the last one with an accuracy of at least base - ``margin`` (percentage points).
    ``within_epsilon``: the last one with a training loss of at most base + ``epsilon``; None unless losses and epsilon are
    given. Bases: those of the smallest fraction, unless given.

    Raises BadInput for values that are not finite or not as many as fractions, fractions outside [0, 1], a negative
    margin, or epsilon <= 0.
    """
    fractions = doubles("sparsities", sparsities)
    if fractions.dim() != 1 or bool(((fractions < 0) | (fractions > 1)).any()):
        raise BadInput("sparsities must be one vector of fractions in [0, 1].")
    first = int(fractions.argmin())
    accuracy = _beside(fractions, "accuracies", accuracies)
    base = float(accuracy[first]) if base_accuracy is None else check("base_accuracy", base_accuracy, Real())
    margin = check("margin", margin, Real(at_least=0))
    epsilon = check("epsilon", epsilon, Maybe(Real(above=0)))
    tolerated = torch.zeros_like(fractions, dtype=torch.bool)
    if train_losses is not None:
        losses = _beside(fractions, "train_losses", train_losses)
        dense = float(losses[first]) if base_loss is None else check("base_loss", base_loss, Real())
        tolerated = tolerated if epsilon is None else losses <= dense + epsilon
    return ActualLimits(*(_last(fractions, good) for good in (accuracy > base, accuracy >= base - margin, tolerated)))


def _beside(fractions: Tensor, name: str, values: Any) -> Tensor:
    found = doubles(name, values)
    if found.shape != fractions.shape:
        raise BadInput(f"{name} must hold one value for each of the {len(fractions)} sparsities.")
    return found


def _last(fractions: Tensor, good: Tensor) -> float | None:
    return float(fractions[good].max()) if bool(good.any()) else None


def total_variation(a: Any, b: Any, bins: int = 100) -> float:
    """Total-variation distance of two weight histograms, in [0, 1]: half the sum of |p - q| over ``bins`` equal bins.

    The bins span both sets of values (any shapes); 0 for equal histograms, 1 for those without a common bin. Raises
    BadInput for sets that are empty or not finite. Zhang et al. 2024 compare trainings of different seeds in this way.
    """
    bins = check("bins", bins, Whole(at_least=1))
    left, right = doubles("a", a).flatten(), doubles("b", b).flatten()
    low, high = float(min(left.min(), right.min())), float(max(left.max(), right.max()))
    if low == high:
        return 0.0
    shares = [torch.histc(values, bins, low, high) / len(values) for values in (left, right)]
    return float((shares[0] - shares[1]).abs().sum() / 2)
