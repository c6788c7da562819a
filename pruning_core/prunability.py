"""How sparse can *your* network be pruned? The predicted limit of Zhang et al. 2024 beside the measured one."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from .curvature import batch_losses, loss_tolerance, null_row_share, spectrum
from .errors import BadInput
from .evaluation import integer_at_least
from .geometry import trace_bound
from .hessian import Hessian, Loss, pairs, refuse_training
from .lanczos import Spectrum
from .prediction import ActualLimits, Limit, actual_limits, predict
from .sites import Scope, find_sites
from .training import progress_bar

FEW_BATCHES = 10
MUCH_NEGATIVE = 0.1
TOO_OPTIMISTIC = 0.1


@dataclass(frozen=True, eq=False)
class Prunability:
    """What :func:`predict_limit` found.

    ``limit``: the prediction (``removed``, ``kept``, their band, ``curve()``). ``spectrum``: of the Hessian over the
    prunable weights. ``trace_bound``: the fraction that must be kept at least by the trace alone is at most this, at the
    limit's distance. ``measured``: removed, loss, accuracy of one global magnitude cut, on the batches given.
    ``actual``: measured limits by three definitions. ``warnings``: premises of the theory that fail here.
    """

    limit: Limit
    spectrum: Spectrum
    trace_bound: float
    measured: pd.DataFrame
    actual: ActualLimits
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        low, high = self.limit.removed_low, self.limit.removed_high
        band = "" if low is None or high is None else f" ({self.limit.band} over probes {low:.4f} to {high:.4f})"
        lines = [
            f"predicted limit: {self.limit.removed:.4f} of the weights can go{band}",
            f"measured, loss at most {self.limit.epsilon:.3g} higher: {_text(self.actual.within_epsilon)}",
            f"measured, accuracy at most a point lower: {_text(self.actual.within_margin)}",
            f"factors: distance to the pruned weights {self.limit.distance:.3g}, "
            f"mean curvature {self.spectrum.mean():.3g}",
        ]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


def predict_limit(
    model: nn.Module,
    batches: Iterable,
    *,
    epsilon: float | None = None,
    loss: Loss | None = None,
    scope: Scope = None,
    probes: int = 5,
    steps: int = 64,
    exact_below: int = 2000,
    null_rows: bool = False,
    negative: str = "abs",
    points: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> Prunability:
    """Predict the largest fraction of the weights that one global magnitude cut can remove, and measure it.

    Args:
        model: a trained network in evaluation mode; it is left as it was.
        batches: (inputs, labels) of the training data, in batches as for training: their spread is the tolerance.
        epsilon: the tolerance on the loss; None: the standard deviation of the batches' losses, as in the paper.
        loss: (outputs, labels) -> mean per sample; cross-entropy by default. scope: prunable layers, as in prune().
        probes, steps: of stochastic Lanczos; networks of at most ``exact_below`` weights get their exact spectrum.
        null_rows: add the share of Hessian rows that are zero, as the paper does for large networks.
        negative: what to do with negative curvature ("abs", "zero", "drop"). points: of the measured curve.

    The Hessian is over the prunable weights alone, so that spectrum and removed fraction count the same. Source: Zhang et
    al. 2024; the measured limits are ours. Raises BadInput for a network in training mode, a loss that is not finite or
    does not depend on the weights, epsilon <= 0, or more steps than weights.
    """
    refuse_training(model)
    integer_at_least("points", points, 2)
    held = [(inputs, labels) for inputs, labels in pairs(batches)]
    losses = batch_losses(model, held, loss)
    if epsilon is None:
        epsilon = loss_tolerance(losses)
    elif not (math.isfinite(epsilon) and epsilon > 0):
        raise BadInput(f"epsilon is a rise of the loss above 0, not {epsilon}.")
    names = find_sites(model, channels=False, scope=scope).weights
    weights = {name: model.get_parameter(name).detach() for name in names}
    hessian = Hessian(model, held, loss, parameters=list(names))
    generator = torch.Generator().manual_seed(seed)
    found = spectrum(
        hessian, probes=probes, steps=steps, generator=generator, exact_below=exact_below, progress=progress
    )
    null = null_row_share(hessian).share if null_rows and not found.exact else 0.0
    limit = predict(
        found.eigenvalues, found.weights, epsilon, weights, null_fraction=null, negative=negative, seed=seed
    )
    measured = magnitude_curve(model, held, list(names), points, loss, progress=progress)
    actual = actual_limits(
        measured["removed"].to_numpy(),
        measured["accuracy"].to_numpy() if measured["accuracy"].notna().all() else -measured["loss"].to_numpy(),
        measured["loss"].to_numpy(),
        epsilon=epsilon,
        margin=1.0 if measured["accuracy"].notna().all() else epsilon,
    )
    warnings = _warnings(hessian, found, limit, actual, len(losses))
    bound = trace_bound(limit.distance, abs(found.mean()), epsilon)
    return Prunability(limit, found, bound, measured, actual, warnings)


@torch.no_grad()
def magnitude_curve(
    model: nn.Module,
    batches: Iterable,
    names: list[str],
    points: int = 50,
    loss: Loss | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Loss and accuracy (percent) after one global magnitude cut of the parameters ``names``, without any training.

    Columns removed, loss, accuracy; ``points`` rows, evenly spaced from 0 up to one weight less than all. Accuracy is NaN
    where labels are no classes. The model is left as it was.
    """
    held = list(pairs(batches))
    pruned = copy.deepcopy(model)
    parameters = [pruned.get_parameter(name) for name in names]
    dense = torch.cat([parameter.flatten() for parameter in parameters])
    order = dense.abs().argsort(stable=True)
    sizes = [parameter.numel() for parameter in parameters]
    rows = []
    for i in progress_bar(progress, iterable=range(points), desc="magnitude cuts", unit="cut"):
        n = round(i * (len(dense) - 1) / (points - 1))
        flat = dense.clone()
        flat[order[:n]] = 0
        for parameter, part in zip(parameters, flat.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))
        value = _mean_loss(pruned, held, loss)
        rows.append({"removed": n / len(dense), "loss": value, "accuracy": _accuracy(pruned, held)})
    return pd.DataFrame(rows)


def _mean_loss(model: nn.Module, held: list[tuple[Tensor, Tensor]], loss: Loss | None) -> float:
    sizes = torch.tensor([len(inputs) for inputs, _ in held], dtype=torch.float64)
    return float((batch_losses(model, held, loss) * sizes).sum() / sizes.sum())


def _accuracy(model: nn.Module, held: list[tuple[Tensor, Tensor]]) -> float:
    right = total = 0
    for inputs, labels in held:
        device = next(model.parameters()).device
        outputs = model(inputs.to(device))
        if labels.dim() != 1 or labels.is_floating_point() or outputs.dim() != 2:
            return math.nan
        right += int((outputs.argmax(1) == labels.to(device)).sum())
        total += len(labels)
    return 100 * right / total


def _warnings(hessian: Hessian, found: Spectrum, limit: Limit, actual: ActualLimits, batches: int) -> tuple[str, ...]:
    """Premises that fail, one sentence each."""
    said = []
    values, weights = found.flattened()
    curved = (values.abs() * weights).sum()
    negative = float((values.abs() * weights)[values < 0].sum() / curved) if curved > 0 else 0.0
    if negative > MUCH_NEGATIVE:
        said.append(f"{negative:.0%} of the curvature is negative: the network is not at a minimum.")
    gain = _possible_gain(hessian)
    if gain > limit.epsilon:
        said.append(
            f"one step down the gradient would lower the loss by about {gain:.2g}, more than the tolerance "
            f"{limit.epsilon:.2g}: the training has not converged."
        )
    if batches < FEW_BATCHES:
        said.append(f"only {batches} batches: their spread, the tolerance, is rough.")
    if actual.within_epsilon is not None and limit.removed - actual.within_epsilon > TOO_OPTIMISTIC:
        said.append(
            "the measured limit lies far below the predicted one: the loss is not quadratic that far out. Training with an "
            "L1 penalty brings the two together."
        )
    return tuple(said)


def _possible_gain(hessian: Hessian) -> float:
    """What the best step along the gradient would gain by the quadratic model: |g|^4 / (2 g'Hg); infinite without curvature."""
    total = torch.zeros(hessian.dimension, dtype=hessian.dtype, device=hessian.device)
    samples = 0
    for inputs, labels in hessian.batches():
        parts = hessian.gradient(inputs, labels)
        total += len(inputs) * torch.cat([part.detach().flatten() for part in parts])
        samples += len(inputs)
    g = total / samples
    squared = float(g @ g)
    bend = float(g @ hessian.matvec(g))
    return squared**2 / (2 * bend) if bend > 0 else (math.inf if squared > 0 else 0.0)


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
