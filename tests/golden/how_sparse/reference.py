"""The prediction as the official code of Zhang et al. 2024 (zhang2024howsparse) makes it, with its accidents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import DOUBLE, Real, check, doubles
from pruning_core.errors import BadInput, BadType
from pruning_core.masks.masks import Masks
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.papers.how_sparse.prediction import pooled

REFERENCE_NULL = 1e-30  # the eigenvalue that stands for null rows in the official code


class ReferenceLimit(NamedTuple):
    """``removed``: p_j of the official code, with its ``position`` j; ``widths``: G(round R_i) of every point (points,)."""

    removed: float
    position: int
    widths: Tensor


def reference_widths(radii: Any, grid: Any, density: Any, epsilon: float, null_fraction: float = 0.0) -> Tensor:
    """The official G: every grid point of a spectral density counts as an eigenvalue, negative ones by their magnitude.

    ``grid``, ``density``: (bins,), the density up to a factor, points with density 0 have no part. The null mass stands at
    1e-30. ``radii`` of any shape, the official code takes whole numbers. Raises BadInput for what does not fit.
    """
    points, mass = doubles("grid", grid), doubles("density", density)
    if points.dim() != 1 or mass.shape != points.shape or bool((mass < 0).any()) or not bool(mass.sum() > 0):
        raise BadInput("grid and density must be two vectors of one length, the density not negative and not all 0.")
    z = check("null_fraction", null_fraction, Real(at_least=0, below=1))
    points = torch.cat([points, points.new_tensor([REFERENCE_NULL])])
    mass = torch.cat([mass, (z / (1 - z) * mass.sum())[None]])
    return normalised_width(doubles("radii", radii), points, epsilon, mass)


def reference_predict(
    grid: Any, density: Any, distances: Any, epsilon: float, *, null_fraction: float = 0.0
) -> ReferenceLimit:
    """The official prediction: G of a density on a grid, at distances rounded to whole numbers, compared on a grid of p.

    ``distances``: (points,) R_i at the removed fractions p_i = i / points. The answer is the first p_i that is nearest to
    G(round(R_i)), halves rounded to even. Other arguments as in :func:`reference_widths`, which also says what is raised.
    """
    radii = doubles("distances", distances)
    if radii.dim() != 1 or bool((radii < 0).any()):
        raise BadInput("distances must be one vector of numbers that are not negative.")
    # Few whole numbers stand for many distances, and each costs a sum over the whole grid.
    whole, where = radii.round().unique(return_inverse=True)
    widths = reference_widths(whole, grid, density, epsilon, null_fraction)[where]
    fractions = torch.arange(len(radii), dtype=DOUBLE) / len(radii)
    gaps = (widths - fractions).abs()
    position = int((gaps == gaps.min()).nonzero()[0])  # argmin may return any of several
    return ReferenceLimit(position / len(radii), position, widths)


def reference_actual(accuracies: Any) -> float | None:
    """The official measured limit: the last i / points whose accuracy is strictly above the first; None when none is."""
    accuracy = doubles("accuracies", accuracies)
    if accuracy.dim() != 1:
        raise BadInput(f"accuracies must be one vector, not of shape {tuple(accuracy.shape)}.")
    above = (accuracy > accuracy[0]).nonzero()
    return int(above[-1]) / len(accuracy) if len(above) else None


class MagnitudeMask(NamedTuple):
    """``masks``: True where a weight stays; ``threshold``: the largest magnitude that went; ``kept``; ``distance``: R."""

    masks: Masks
    threshold: float
    kept: int
    distance: float


def reference_magnitude_mask(weights: nn.Module | Mapping[str, Tensor], rate: float) -> MagnitudeMask:
    """The official global magnitude cut: the ceil(rate N) smallest of the N weights go, at least one, and all ties with them.

    ``weights``: a mapping name -> tensor, or a network, whose Conv2d weights are pooled first and Linear weights after
    them. ``rate`` in [0, 1]: the product rate N is taken in float64 and rounded up, so that 0.28 of 100 removes 29.
    Raises BadInput for another rate, and where there is nothing to prune.
    """
    rate = check("rate", rate, Real(at_least=0, at_most=1))
    if isinstance(weights, nn.Module):
        found = [
            (f"{name}.weight" if name else "weight", module.weight)
            for kind in (nn.Conv2d, nn.Linear)
            for name, module in weights.named_modules()
            if isinstance(module, kind)
        ]
        weights = dict(found)
    elif not isinstance(weights, Mapping):
        raise BadType(f"a network or a mapping from names to tensors is needed, not {type(weights).__name__}.")
    magnitudes = pooled(weights).abs()
    n = max(math.ceil(float(rate) * len(magnitudes)), 1)
    threshold = magnitudes.kthvalue(n).values
    gone = magnitudes <= threshold
    masks = Masks({name: weight.detach().to("cpu", DOUBLE).abs() > threshold for name, weight in weights.items()})
    kept = len(magnitudes) - int(gone.sum())
    return MagnitudeMask(masks, float(threshold), kept, float(magnitudes[gone].norm()))
