"""The limit as the official code of Zhang et al. (2024) computes it, its accidents included: a density on a grid, distances
rounded to whole numbers, one weight that is removed at a fraction of 0. The book's own way is ``predict_limit``."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import DOUBLE, Real, Whole, check, checked, doubles
from pruning_core.errors import BadInput, BadType
from pruning_core.masks.masks import Masks
from pruning_core.models.modes import copied
from pruning_core.models.ready import check_numbers
from pruning_core.papers.how_sparse.curvature.batches import Batches, Loss, batch_losses, loss_tolerance, pairs
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, quadrature, rademacher
from pruning_core.papers.how_sparse.curvature.measures import null_row_share, reference_density
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.papers.how_sparse.prediction import magnitude_distance, pooled

REFERENCE_NULL = 1e-30  # the eigenvalue that stands for null rows in the official code


class ReferenceLimit(NamedTuple):
    """``removed``: p_j of the official code, with its ``position`` j; ``widths``: G(round R_i) of every point (points,);
    ``epsilon``: the tolerance, ``null_fraction``: the share of rows taken for zero."""

    removed: float
    position: int
    widths: Tensor
    epsilon: float
    null_fraction: float


@checked(batches=None)
def reference_limit(
    model: nn.Module, batches: Batches, *, null_rows: bool, steps: int = 128, probes: int = 1, points: int = 1000,
    loss: Loss | None = None, start: Tensor | None = None, seed: int = 0,
) -> ReferenceLimit:  # fmt: skip
    """The predicted limit as ``gaussian_width.py`` has it, from a trained network to p_j, in one call.

    The network loses its smallest weight; epsilon is the spread of its batches' losses; the Hessian of all parameters but
    those of batch norm goes through Lanczos with the official roundings, its density stands on the official grid, and
    ``null_rows`` adds the share of a hundred rows that the code takes for zero, as it does for all networks but the fully
    connected ones. ``model``: in evaluation mode, left as it was; ``batches``: (inputs, labels) of the training data, fixed
    ones, where the code draws new crops each time. ``steps`` and ``probes`` of Lanczos, ``points`` of the sweep as in the
    files. ``start``: (probes, D) first vectors, by default random signs. Raises BadInput as ``predict_limit`` does.

    >>> network, draw = nn.Linear(6, 3).eval(), torch.Generator().manual_seed(0)
    >>> data = [(torch.randn(8, 6, generator=draw), torch.arange(8) % 3) for _ in range(4)]
    >>> 0 < reference_limit(network, data, null_rows=False, steps=10, points=100).removed < 1
    True
    """
    for name, value in (("steps", steps), ("probes", probes), ("points", points)):
        check(name, value, Whole(at_least=1))
    check_numbers(model)
    held = list(pairs(batches, model))
    analysed = copied(model)
    first = reference_magnitude_mask(model, 0.0).masks
    first.apply_(analysed)
    epsilon = loss_tolerance(batch_losses(analysed, held, loss))
    hessian = Hessian(analysed, held, loss)
    null = 0.0
    if null_rows:
        null = null_row_share(Hessian(analysed, held, loss, exclude_norms=False), reference=True).share
    source = torch.Generator().manual_seed(seed)
    if start is not None and tuple(start.shape[1:]) != (hessian.dimension,):
        raise BadInput(f"start holds vectors of {hessian.dimension} numbers, (probes, D), not {tuple(start.shape)}.")
    starts = [rademacher(hessian.dimension, source) for _ in range(probes)] if start is None else [*start]
    rules = [
        quadrature(*lanczos(hessian.matvec, begin.to(hessian.device, hessian.dtype), steps, reference=True))
        for begin in starts
    ]
    ritz, weights = (torch.stack([rule[part].cpu() for rule in rules]) for part in (0, 1))
    density, grid = reference_density(ritz, weights)
    magnitudes = [analysed.get_parameter(name).detach() for name in first]
    total = sum(weight.numel() for weight in magnitudes)
    gone = [max(math.ceil(i / points * total), 1) for i in range(points)]
    distances = magnitude_distance(magnitudes)[gone]
    return reference_predict(grid, density, distances, epsilon, null_fraction=null)


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
    return ReferenceLimit(position / len(radii), position, widths, float(epsilon), float(null_fraction))


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
