r"""How sparse can this network be pruned: the limit of Zhang et al. 2024 (zhang2024howsparse), and what was measured.

With the Hessian's eigenvalues at the dense weights, the tolerance epsilon on the training loss, and the distance R(n) to
the weights whose n smallest magnitudes are zero, the limit is where the removed fraction reaches the normalised width:

    n / D = G(R(n)),        G(R) = (1/D) sum_i r_i^2 / (R^2 + r_i^2),        r_i^2 = 2 epsilon / lambda_i

The left side grows and the right side falls with n, so there is one crossing. The paper's word "pruning ratio" means the
removed fraction in its first version and in the code, the kept one in the last: here it is always ``removed`` or ``kept``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from pruning_core.checks import DOUBLE, Maybe, Real, Whole, check, checked, doubles
from pruning_core.errors import BadInput, BadType, known_name
from pruning_core.papers.how_sparse.geometry.kinematic import NEGATIVE, normalised_width, window

FEWEST_FOR_BOOTSTRAP = 10  # probes; below, resampling them says less than their range


@checked
def magnitude_distance(weights: Tensor | Iterable[Tensor] | Mapping[str, Tensor]) -> Tensor:
    """R(n) = sqrt(sum of the n smallest w^2) for n = 0 .. N, exact: (N + 1,) float64, from 0 to the norm of all.

    ``weights``: all prunable weights, of any shapes, as one tensor, several, or a mapping; their signs do not matter.
    Raises BadInput when there are none, or they are not finite.

    >>> magnitude_distance(torch.tensor([3.0, -4.0]))
    tensor([0., 3., 5.], dtype=torch.float64)
    """
    return torch.cat([torch.zeros(1, dtype=DOUBLE), pooled(weights).abs().sort().values.square().cumsum(0)]).sqrt()


class LimitInterval(NamedTuple):
    """Removing up to ``possible`` leaves some good network, removing more than ``impossible`` none; and their difference."""

    possible: float
    impossible: float
    gap: float


class Problem(NamedTuple):
    """What the equation is made of: distances (N + 1,), spectra and their weights (probes, M), and constants."""

    distances: Tensor
    eigenvalues: Tensor
    weights: Tensor
    epsilon: float
    null_fraction: float
    negative: str
    dimension: int

    def widths(self, distances: Tensor) -> Tensor:
        """G of every probe: distances of any shape S -> (probes, *S)."""
        settings = (self.null_fraction, self.negative)
        pairs = zip(self.eigenvalues, self.weights, strict=True)
        return torch.stack([normalised_width(distances, e, self.epsilon, w, *settings) for e, w in pairs])

    def solve(self, shares: Tensor, shift: float = 0.0) -> Tensor:
        """The largest n with n / D + shift <= G(R(n)), or 0, a mixture: (mixtures, probes) -> (mixtures,) int64."""
        low = torch.zeros(len(shares), dtype=torch.long)  # without a shift it holds at n = 0, where G = 1
        high = torch.full_like(low, len(self.distances))  # one beyond the last n: never asked
        while bool((high - low > 1).any()):
            middle = (low + high) // 2
            width = (shares * self.widths(self.distances[middle]).T).sum(1)
            # Where all probes give exactly 1 the mixture may fall short of it by rounding.
            holds = middle.to(DOUBLE) / self.dimension + shift <= width + 1e-14  # integers divide to float32
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return low

    def removable(self, shift: float = 0.0) -> tuple[int, float]:
        """The same n with all probes averaged, and the fraction n / N of the weights."""
        probes = len(self.eigenvalues)
        n = int(self.solve(torch.full((1, probes), 1 / probes, dtype=DOUBLE), shift)[0])
        return n, n / (len(self.distances) - 1)


@dataclass(frozen=True)
class Limit:
    """A predicted limit: fractions of the prunable weights, with what it was computed from.

    ``removed`` + ``kept`` = 1. ``removed_low`` and ``removed_high`` show how much the spectrum's probes disagree, as
    ``band`` says: "bootstrap" (95 % percentile interval over resampled probes, from ten probes on), "range" (smallest and
    largest limit of a single probe) or "none" (one probe or exact eigenvalues; both are None). ``distance``: R at the
    limit. ``null_fraction``: share of eigenvalues declared 0.
    """

    removed: float
    kept: float
    removed_low: float | None
    removed_high: float | None
    band: Literal["bootstrap", "range", "none"]
    distance: float
    epsilon: float
    null_fraction: float
    problem: Problem = field(repr=False, compare=False)

    def curve(self, points: int = 1001) -> pd.DataFrame:
        """Both sides of the equation: columns p (removed fraction of the weights), R, G, ``points`` rows or one a weight.

        They cross at ``removed``: there G reaches n / D, which is p itself unless ``dimension`` was given.
        """
        points = check("points", points, Whole(at_least=2))
        n = len(self.problem.distances) - 1
        removed = torch.linspace(0, n, min(points, n + 1), dtype=DOUBLE).round().long()
        distances = self.problem.distances[removed]
        widths = self.problem.widths(distances).mean(0)
        return pd.DataFrame({"p": removed.numpy() / n, "R": distances.numpy(), "G": widths.numpy()})

    def removed_at(self, epsilon: float) -> float:
        """The fraction that could go if the tolerance were ``epsilon``, and all else the same."""
        return self.problem._replace(epsilon=epsilon).removable()[1]

    def bounds(self, eta: float = 0.01) -> LimitInterval:
        """The two bounds of the theory as fractions removed, each wrong with probability at most ``eta`` in (0, 1).

        ``limit_bounds`` gives them at one distance; here the distance goes with the fraction, so they are where n / D reaches
        G(R(n)) - a and G(R(n)) + a, with a the window of the kinematic formula divided by D.
        """
        shift = window(self.problem.dimension, eta) / self.problem.dimension
        (_, low), (_, high) = self.problem.removable(shift), self.problem.removable(-shift)
        return LimitInterval(low, high, high - low)


@checked
def predict(
    eigenvalues: Any, weights: Any, epsilon: float, magnitudes: Tensor | Iterable[Tensor] | Mapping[str, Tensor],
    *, null_fraction: float = 0.0, dimension: int | None = None, negative: str = "abs",
    resamples: int = 1000, seed: int = 0,
) -> Limit:  # fmt: skip
    """The largest fraction of the weights that the theory lets magnitude pruning remove at a loss of ``epsilon`` more.

    ``eigenvalues``, ``weights``: Ritz values and quadrature weights of stochastic Lanczos, (probes, M) or (M,), each probe
    normalised to 1 and all averaged; or exact eigenvalues (D,) and None. ``epsilon`` > 0, in units of the loss.
    ``magnitudes``: all N prunable weights. ``null_fraction`` in [0, 1): share of further eigenvalues that are exactly 0.
    ``dimension``: how many coordinates the spectrum is of, at least N (default N): biases can count there, and n removed
    weights are then n / dimension of them. ``negative`` curvature: "abs", "zero" or "drop". ``resamples`` and ``seed``: of
    the bootstrap over probes. Solved exactly, by bisection over n. Raises BadInput or BadType for input that is empty, not
    finite, negative where it must not be, or does not fit together.

    >>> magnitudes = torch.logspace(-4, 0, 1000)
    >>> round(predict([1.0] * 100, [0.01] * 100, 0.01, magnitudes, resamples=10).removed, 2)
    0.56
    """
    epsilon = float(check("epsilon", epsilon, Real(above=0)))
    null_fraction = float(check("null_fraction", null_fraction, Real(at_least=0, below=1)))
    known_name("treatment of negative eigenvalues", negative, NEGATIVE)
    resamples = check("resamples", resamples, Whole(at_least=1))
    seed = check("seed", seed, Whole(at_least=0))
    spectra, shares = _spectra(eigenvalues, weights)
    distances = magnitude_distance(magnitudes)
    n = len(distances) - 1
    size = n if dimension is None else check("dimension", dimension, Whole(at_least=1))
    if size < n:
        raise BadInput(f"dimension must be at least {n}, the number of prunable weights, not {size}.")
    problem = Problem(distances, spectra, shares, epsilon, null_fraction, negative, size)
    count, removed = problem.removable()
    band = _band(problem, resamples, seed)
    return Limit(removed, (n - count) / n, *band, float(distances[count]), epsilon, null_fraction, problem)


def _spectra(eigenvalues: Any, weights: Any) -> tuple[Tensor, Tensor]:
    """(probes, M) each, the weights of every probe adding up to 1."""
    values = doubles("eigenvalues", eigenvalues)
    if weights is None and values.dim() != 1:
        raise BadInput(f"eigenvalues without weights must be one vector (D,), not {tuple(values.shape)}.")
    shares = torch.ones_like(values) if weights is None else doubles("weights", weights)
    if values.dim() not in (1, 2) or shares.shape != values.shape:
        found = f"{tuple(values.shape)} and {tuple(shares.shape)}"
        raise BadInput(f"eigenvalues and weights must both have shape (probes, M) or (M,), not {found}.")
    values, shares = values.reshape(-1, values.shape[-1]), shares.reshape(-1, values.shape[-1])
    if bool((shares < 0).any()) or not bool((shares.sum(1) > 0).all()):
        raise BadInput("weights of eigenvalues must not be negative, and not all 0 for a probe.")
    return values, shares / shares.sum(1, keepdim=True)


def _band(problem: Problem, resamples: int, seed: int) -> tuple[float | None, float | None, Any]:
    probes, n = len(problem.eigenvalues), len(problem.distances) - 1
    if probes == 1:
        return None, None, "none"
    if probes < FEWEST_FOR_BOOTSTRAP:
        alone = problem.solve(torch.eye(probes, dtype=DOUBLE))
        return int(alone.min()) / n, int(alone.max()) / n, "range"
    drawn = torch.randint(probes, (resamples, probes), generator=torch.Generator().manual_seed(seed))
    mixtures = nn.functional.one_hot(drawn, probes).sum(1).to(DOUBLE) / probes
    ends = torch.tensor([0.025, 0.975], dtype=DOUBLE)
    low, high = (problem.solve(mixtures).to(DOUBLE).quantile(ends) / n).tolist()
    return low, high, "bootstrap"


def pooled(weights: Tensor | Iterable[Tensor] | Mapping[str, Tensor]) -> Tensor:
    """All entries as one vector, float64."""
    if isinstance(weights, Tensor):
        return doubles("weights", weights).flatten()
    if not isinstance(weights, Iterable):
        raise BadType(f"weights must be a tensor, several, or a mapping to tensors, not {type(weights).__name__}.")
    parts = [torch.empty(0, dtype=DOUBLE)]
    for part in weights.values() if isinstance(weights, Mapping) else weights:
        if not isinstance(part, Tensor):
            raise BadType(f"weights must be tensors, not {type(part).__name__}.")
        parts.append(part.detach().flatten().to("cpu", DOUBLE))
    return doubles("weights", torch.cat(parts))


class ActualLimits(NamedTuple):
    """The largest removed fraction that still was good enough, by three definitions; None where no fraction was."""

    strict_last: float | None
    within_margin: float | None
    within_epsilon: float | None


@checked
def actual_limits(
    sparsities: Any, accuracies: Any, train_losses: Any = None, *, margin: float = 1.0, epsilon: float | None = None,
    base_accuracy: float | None = None, base_loss: float | None = None,
) -> ActualLimits:  # fmt: skip
    """Measured limits of a sweep over removed fractions: (points,) each, in any order.

    ``strict_last``: the last fraction with an accuracy strictly above the base (the official definition, which noise
    decides). ``within_margin``: the last one with an accuracy of at least base - ``margin`` (percentage points).
    ``within_epsilon``: the last one with a training loss of at most base + ``epsilon``; None unless losses and epsilon are
    given. Bases: those of the smallest fraction, unless given. Raises BadInput for values that are not finite or not as many
    as fractions, fractions outside [0, 1], a negative margin, or epsilon <= 0.

    >>> actual_limits([0.0, 0.5, 0.8, 0.9], [98.0, 97.9, 97.5, 60.0]).within_margin
    0.8
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
    good = [fractions[fits] for fits in (accuracy > base, accuracy >= base - margin, tolerated)]
    return ActualLimits(*(float(found.max()) if len(found) else None for found in good))


def _beside(fractions: Tensor, name: str, values: Any) -> Tensor:
    found = doubles(name, values)
    if found.shape != fractions.shape:
        raise BadInput(f"{name} must hold one value for each of the {len(fractions)} sparsities.")
    return found


@checked
def total_variation(a: Any, b: Any, bins: int = 100) -> float:
    """Total-variation distance of two weight histograms, in [0, 1]: half the sum of |p - q| over ``bins`` equal bins.

    The bins span both sets of values (any shapes). Raises BadInput for sets that are empty or not finite. Zhang et al. 2024
    compare trainings of different seeds in this way.

    >>> total_variation([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0])
    0.25
    """
    bins = check("bins", bins, Whole(at_least=1))
    left, right = doubles("a", a).flatten(), doubles("b", b).flatten()
    low, high = float(min(left.min(), right.min())), float(max(left.max(), right.max()))
    if low == high:
        return 0.0
    shares = [torch.histc(values, bins, low, high) / len(values) for values in (left, right)]
    return float((shares[0] - shares[1]).abs().sum() / 2)
