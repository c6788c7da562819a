"""How sparse can *your* network be pruned? The predicted limit of Zhang et al. 2024 beside the measured one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import nn

from pruning_core.checks import Real, Whole, check, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import Scope, find_sites
from pruning_core.models.calls import like_model, samples, tried
from pruning_core.models.modes import copied
from pruning_core.models.ready import check_numbers, check_open
from pruning_core.papers.how_sparse.curvature.batches import Batches, Loss, batch_losses, loss_tolerance, pairs
from pruning_core.papers.how_sparse.curvature.hessian import Hessian, LivingHessian
from pruning_core.papers.how_sparse.curvature.measures import Spectrum, null_row_share, spectrum
from pruning_core.papers.how_sparse.geometry.kinematic import trace_bound
from pruning_core.papers.how_sparse.prediction import ActualLimits, Limit, actual_limits, predict
from pruning_core.progress import progress_bar
from pruning_core.training.losses import CrossEntropy, has_classes, read_by

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
    ``removed_before``: the fraction of the weights that was dead already; ``limit`` and ``spectrum`` are of the others, while
    ``removed``, ``measured`` and ``actual`` count all.
    """

    limit: Limit
    spectrum: Spectrum
    trace_bound: float
    measured: pd.DataFrame
    actual: ActualLimits
    warnings: tuple[str, ...]
    removed_before: float = 0.0

    @property
    def removed(self) -> float:
        """The predicted limit as a fraction of all prunable weights, those that were dead already included."""
        return self.of_all(self.limit.removed)

    def of_all(self, removed: float) -> float:
        """A fraction removed of the weights that were alive, as one of all."""
        return self.removed_before + (1 - self.removed_before) * removed

    @property
    def band(self) -> tuple[float, float] | None:
        """The ends of the prediction's band, as fractions of all prunable weights."""
        low, high = self.limit.removed_low, self.limit.removed_high
        return None if low is None or high is None else (self.of_all(low), self.of_all(high))

    def __repr__(self) -> str:
        band = f" ({self.limit.band} over probes {self.band[0]:.4f} to {self.band[1]:.4f})" if self.band else ""
        by_accuracy, by_loss = ("none" if found is None else f"{found:.4f}" for found in self.actual[1:])
        lines = [
            f"predicted limit: {self.removed:.4f} of the weights can go{band}",
            f"measured, loss at most {self.limit.epsilon:.3g} higher: {by_loss}",
            f"measured, accuracy at most a point lower: {by_accuracy}",
            f"factors: distance to the pruned weights {self.limit.distance:.3g}, mean curvature {self.spectrum.mean():.3g}",
        ]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


@checked(batches=None)
def predict_limit(
    model: nn.Module, batches: Batches, *, epsilon: float | None = None, loss: Loss | None = None,
    scope: Scope = None, masks: Masks | None = None, probes: int = 5, steps: int = 64, exact_below: int = 2000,
    null_rows: bool = False, negative: str = "abs", points: int = 50, seed: int = 0, progress: bool = True,
) -> Prunability:  # fmt: skip
    """Predict the largest fraction of the weights that one global magnitude cut can remove, and measure it.

    Args:
        model: a trained network in evaluation mode; it is left as it was.
        batches: (inputs, labels) of the training data, in batches as for training (a DataLoader, a list, ..., as for fit):
            their spread is the tolerance.
        epsilon: the tolerance on the loss; None: the standard deviation of the batches' losses, as in the paper.
        loss: (outputs, labels) -> mean per sample; cross-entropy by default. scope: prunable layers, as in prune().
        masks: of a network that was pruned before. Its dead weights stay dead: they are no coordinates of the Hessian, and
            count as removed.
        probes, steps: of stochastic Lanczos; networks of at most ``exact_below`` weights get their exact spectrum.
        null_rows: add the share of Hessian rows that are zero, as the paper does for large networks.
        negative: what to do with negative curvature ("abs", "zero", "drop"). points: of the measured curve.

    The Hessian is over the prunable weights alone, so that spectrum and removed fraction count the same. Source: Zhang et
    al. 2024; the measured limits are ours. Raises BadInput for a network in training mode, a loss that is not finite or
    does not depend on the weights, epsilon <= 0, more steps than weights, dead weights that are not 0, or null rows of a
    network that was pruned before.

    >>> predict_limit(nn.Linear(2, 2), [])
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: batches is empty: there is no loss.
    """
    points = check("points", points, Whole(at_least=2))
    held = list(pairs(batches, model))
    losses = batch_losses(model, held, loss)
    epsilon = loss_tolerance(losses) if epsilon is None else check("epsilon", epsilon, Real(above=0))
    names = find_sites(model, channels=False, scope=scope).weights
    _refuse_frozen(model, names)
    whole = Hessian(model, held, loss, parameters=list(names))
    hessian = _of_the_living(whole, masks)
    if null_rows and hessian is not whole:
        raise BadInput("null rows are those of a whole Hessian; leave null_rows out for a pruned network.")
    source = torch.Generator().manual_seed(seed)
    found = spectrum(hessian, probes=probes, steps=steps, generator=source, exact_below=exact_below, progress=progress)
    null = null_row_share(whole).share if null_rows and not found.exact else 0.0
    values, shares = found.eigenvalues, found.weights
    limit = predict(values, shares, epsilon, hessian.weights(), null_fraction=null, negative=negative, seed=seed)
    bound = trace_bound(limit.distance, abs(found.mean()), epsilon)
    measured = magnitude_curve(model, held, list(names), points, loss, progress=progress)
    # Where there is no accuracy, a higher loss counts as a lower one.
    accuracy, margin = (measured.accuracy, 1.0) if measured.accuracy.notna().all() else (-measured.loss, epsilon)
    actual = actual_limits(measured.removed, accuracy, measured.loss, epsilon=epsilon, margin=margin)
    dead = 1 - hessian.dimension / whole.dimension
    result = Prunability(limit, found, bound, measured, actual, (), dead)
    return replace(result, warnings=_warnings(hessian, result, len(losses)))


def small_share(model: nn.Module, below: float = 1e-3, scope: Scope = None) -> float:
    """The share of the prunable weights with a magnitude below ``below``: the naive prediction of the limit, without a
    Hessian. Reviewers of Zhang et al. 2024 asked for this comparison; the threshold is a guess that no theory gives."""
    below = check("below", below, Real(above=0))
    names = find_sites(model, channels=False, scope=scope).weights
    magnitudes = torch.cat([model.get_parameter(name).detach().flatten().abs() for name in names])
    return float(magnitudes.lt(below).double().mean())


def _refuse_frozen(model: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        if not model.get_parameter(name).requires_grad:
            layer = name.rpartition(".")[0]
            raise BadInput(
                f"{name!r} is frozen, so it has no curvature: leave it out, scope=['!{layer}'], or let it learn, "
                "requires_grad_(True)."
            )


def _of_the_living(whole: Hessian, masks: Masks | None) -> Hessian | LivingHessian:
    if masks is None:
        return whole
    masks.check(whole.model)
    alive = Masks({name: masks[name] for name in whole.shapes if name in masks})
    for name, mask in alive.items():
        if bool(whole.model.get_parameter(name).detach().cpu()[~mask].any()):
            raise BadInput(f"{name!r} has dead weights that are not 0; apply the masks to the network first.")
    return LivingHessian(whole, alive) if alive.removed else whole


@checked
@torch.no_grad()
def magnitude_curve(
    model: nn.Module,
    batches: Batches,
    names: list[str],
    points: int = 50,
    loss: Loss | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Loss and accuracy (percent) after one global magnitude cut of the parameters ``names``, without any training.

    Columns removed, loss, accuracy; ``points`` rows, evenly spaced from 0 up to one weight less than all. Accuracy is NaN
    where labels are no classes. The model is left as it was.

    >>> network = nn.Linear(4, 2).eval()
    >>> batches = [(torch.zeros(3, 4), torch.tensor([0, 1, 0]))]
    >>> list(magnitude_curve(network, batches, ["weight"], points=3, progress=False).columns)
    ['removed', 'loss', 'accuracy']
    """
    check_numbers(model)
    check_open(model)
    known = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        known_name("parameter", name, known)
    if not names:
        raise BadInput("names is empty: there is no parameter to cut.")
    held = list(pairs(batches, model))
    pruned = copied(model)
    parameters = [pruned.get_parameter(name) for name in names]
    sizes = [parameter.numel() for parameter in parameters]
    dense = torch.cat([parameter.flatten() for parameter in parameters])
    order = dense.abs().argsort(stable=True)
    rows = []
    for i in progress_bar(progress, iterable=range(points), desc="magnitude cuts", unit="cut"):
        n = round(i * (len(dense) - 1) / (points - 1))
        for parameter, part in zip(parameters, dense.index_fill(0, order[:n], 0).split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))
        rows.append({"removed": n / len(dense)} | _loss_and_accuracy(pruned, held, loss))
    return pd.DataFrame(rows)


def _loss_and_accuracy(model: nn.Module, held: Batches, loss: Loss | None) -> dict[str, float]:
    """Over all samples; the accuracy in percent, or NaN where labels are no classes."""
    sizes = torch.tensor([samples(inputs) for inputs, _ in held], dtype=torch.float64)
    found = {"loss": float((batch_losses(model, held, loss) * sizes).sum() / sizes.sum()), "accuracy": math.nan}
    right = 0
    for batch in held:
        inputs, labels = like_model(model, *batch)
        outputs = read_by(loss or CrossEntropy(), tried(model, inputs))
        if not has_classes(outputs, labels) or labels.dim() != 1:
            return found
        right += int((outputs.argmax(1) == labels).sum())
    return found | {"accuracy": 100 * right / int(sizes.sum())}


def _warnings(hessian: Hessian | LivingHessian, result: Prunability, batches: int) -> tuple[str, ...]:
    warnings = []
    limit, measured = result.limit, result.actual.within_epsilon
    values, weights = result.spectrum.flattened()
    curved = values.abs() * weights
    negative = float(curved[values < 0].sum() / curved.sum()) if curved.sum() > 0 else 0.0
    if negative > MUCH_NEGATIVE:
        warnings.append(f"{negative:.0%} of the curvature is negative: the network is not at a minimum.")
    gain = _possible_gain(hessian)
    if gain > limit.epsilon:
        warnings.append(
            f"one step down the gradient would lower the loss by about {gain:.2g}, more than the tolerance "
            f"{limit.epsilon:.2g}: the training has not converged."
        )
    if batches < FEW_BATCHES:
        warnings.append(f"only {batches} batches: their spread, the tolerance, is rough.")
    if measured is not None and result.removed - measured > TOO_OPTIMISTIC:
        warnings.append(
            "the measured limit lies far below the predicted one: the loss is not quadratic that far out. Training with an "
            "L1 penalty brings the two together."
        )
    return tuple(warnings)


def _possible_gain(hessian: Hessian | LivingHessian) -> float:
    """What the best step along the gradient would gain by the quadratic model: |g|^4 / (2 g'Hg); infinite without curvature."""
    g = hessian.mean_gradient()
    squared, bend = float(g @ g), float(g @ hessian.matvec(g))
    return squared**2 / (2 * bend) if bend > 0 else (math.inf if squared > 0 else 0.0)
