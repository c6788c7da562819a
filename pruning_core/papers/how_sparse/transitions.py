r"""Phase transitions, simulated: random subspaces against cones and ellipsoids, and recovery by l1 minimisation.

Each simulation returns tidy rows, one for each setting and subspace size: how many of the trials succeeded, and at which
size the kinematic formula predicts the jump (Amelunxen, Lotz, McCoy and Tropp 2014). Trials and settings are independent.
Within one trial the subspaces of all sizes are nested: each is uniformly random, success grows with size, and one
decomposition answers for all sizes at once.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pruning_core.checks import DOUBLE, Real, Several, Whole, check, checked, doubles
from pruning_core.errors import BadInput, BadType, PruningError
from pruning_core.papers.how_sparse.geometry.cones import CircularCone, L1DescentCone
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.progress import progress_bar

Sizes = Iterable[int] | None
Numbers = Iterable[float]
BLOCK = 2**21  # numbers in the matrices of one batch of trials
OUTCOMES = ("successes", "probability")


@checked
def log_uniform(ambient: int, low: float = 1e-3, high: float = 10.0) -> Tensor:
    """``ambient`` eigenvalues from ``low`` to ``high`` at equal ratios, (ambient,) float64.

    >>> log_uniform(5, 0.01, 100.0)
    tensor([1.0000e-02, 1.0000e-01, 1.0000e+00, 1.0000e+01, 1.0000e+02],
           dtype=torch.float64)
    """
    ambient = check("ambient", ambient, Whole(at_least=1))
    high = check("high", high, Real(at_least=check("low", low, Real(above=0))))
    return torch.logspace(math.log10(low), math.log10(high), ambient, dtype=DOUBLE)


@checked
def circular_cone(
    ambient: int, angles: Numbers, sizes: Sizes = None, *, trials: int = 20, seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """Random k-dimensional subspaces of R^ambient against cones of the given half angles (radians, in [0, pi/2]).

    Success: the subspace holds more of the cone than the origin. Rows: simulation, ambient, angle, k, trials, successes,
    probability (exact), predicted (D - delta), seed. ``sizes``: the k, default 0 .. ambient. Raises BadInput for sizes,
    angles or counts out of range.

    >>> rows = circular_cone(20, [math.pi / 4], [2, 18], trials=5, progress=False)
    >>> rows["successes"].tolist()
    [0, 5]
    """
    chosen = _sizes("sizes", sizes, 0, ambient)
    cones = [CircularCone(ambient, angle) for angle in check("angles", angles, Several(Real(), at_least=1))]
    generator = _generator(trials, seed)
    rows = []
    for cone in progress_bar(progress, iterable=cones, unit="angle", desc="circular cone"):
        # The cone is met if its axis is within the angle of the subspace. Turning the axis, and not the subspace, is the
        # same: the subspace is then the first k axes, and the axis a Gaussian vector.
        squares = torch.randn(trials, ambient, generator=generator, dtype=DOUBLE).square()
        inside = torch.cat([torch.zeros(trials, 1, dtype=DOUBLE), squares.cumsum(1)], 1)
        met = inside / inside[:, -1:] >= math.cos(cone.angle) ** 2
        about = {"simulation": "circular cone", "ambient": ambient, "angle": float(cone.angle)}
        predicted = ambient - cone.statistical_dimension()
        for k in chosen:
            outcome = {"successes": int(met[:, k].sum()), "probability": meeting_probability(cone, k)}
            rows.append(about | {"k": k, "trials": trials} | outcome | {"predicted": predicted, "seed": seed})
    return pd.DataFrame(rows)


def meeting_probability(cone: CircularCone, k: int) -> float:
    """The exact probability that a random k-dimensional subspace meets a circular cone outside of the origin.

    The squared cosine of the angle between the axis and the subspace follows the Beta(k/2, (D - k)/2) distribution.
    """
    from scipy.stats import beta  # slow to load

    k = check("k", k, Whole(at_least=0, at_most=cone.ambient))
    if k in (0, cone.ambient):
        return float(k > 0)
    return float(beta.sf(math.cos(cone.angle) ** 2, k / 2, (cone.ambient - k) / 2))


@checked
def ellipsoid(
    eigenvalues: Any,
    epsilons: Numbers,
    distances: Numbers = (10.0,),
    sizes: Sizes = None,
    *,
    trials: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Random k-dimensional subspaces against ``{x: (x - w)' H (x - w) / 2 <= epsilon}``, w at a distance R from the origin.

    ``eigenvalues``: (D,) of H, positive. w has a random direction. Success is decided exactly, by least squares. Rows for
    every distance and epsilon: simulation, ambient, distance, epsilon, k, trials, successes, predicted, seed, where
    predicted is D - sum r^2 / (R^2 + r^2), the formula of Zhang et al. 2024. ``sizes``: the k, default 0 .. D. Raises
    BadInput for eigenvalues, distances or epsilons that are not positive, or sizes out of range.

    >>> rows = ellipsoid([1.0] * 20, [0.1], [1.0], [1, 20], trials=5, progress=False)
    >>> rows["successes"].tolist()
    [0, 5]
    """
    spectrum = doubles("eigenvalues", eigenvalues)
    if spectrum.dim() != 1 or bool((spectrum <= 0).any()):
        raise BadInput("eigenvalues must be one vector of positive numbers: else the set is no ellipsoid.")
    ambient = len(spectrum)
    chosen = _sizes("sizes", sizes, 0, ambient)
    positive = Several(Real(above=0), at_least=1)
    pairs = product(check("distances", distances, positive), check("epsilons", epsilons, positive))
    settings = [(float(radius), float(epsilon)) for radius, epsilon in pairs]
    generator = _generator(trials, seed)
    rows = []
    for radius, epsilon in progress_bar(progress, iterable=settings, unit="setting", desc="ellipsoid"):
        most = ambient - chosen[0]  # equations of the smallest subspace
        batch = max(BLOCK // (ambient * max(most, 1)), 1)
        batches = [min(batch, trials - start) for start in range(0, trials, batch)]
        lowest = torch.cat([radius**2 * _lowest(spectrum, most, n, generator) for n in batches])
        about = {"simulation": "ellipsoid", "ambient": ambient, "distance": radius, "epsilon": epsilon}
        predicted = ambient * (1 - normalised_width(radius, spectrum, epsilon))
        for k in chosen:
            met = int((lowest[:, ambient - k] <= epsilon).sum())
            rows.append(about | {"k": k, "trials": trials, "successes": met, "predicted": predicted, "seed": seed})
    return pd.DataFrame(rows)


def _lowest(spectrum: Tensor, most: int, trials: int, generator: torch.Generator) -> Tensor:
    """The minimum of (x - u)' H (x - u) / 2 over nested random subspaces, u a random unit vector: (trials, most + 1).

    Column m belongs to the subspace of codimension m, the x with N' x = 0 for the first m columns of a Gaussian N.
    """
    u = torch.randn(trials, len(spectrum), 1, generator=generator, dtype=DOUBLE)
    u /= u.norm(dim=1, keepdim=True)
    normals = torch.randn(trials, len(spectrum), most, generator=generator, dtype=DOUBLE)
    # In y = H^1/2 x the ellipsoid is a ball, and the equations are (H^-1/2 N)' y = 0: the squared distance from H^1/2 u to
    # their solutions is what of it lies in the span of H^-1/2 N, and the first m columns of Q span that of the first m.
    root = spectrum.sqrt()[:, None]
    q = torch.linalg.qr(normals / root).Q
    parts = (q.mT @ (root * u))[..., 0].square() / 2
    return torch.cat([torch.zeros(trials, 1, dtype=DOUBLE), parts.cumsum(1)], 1)


@checked
def l1_recovery(
    ambient: int,
    nonzeros: Iterable[int],
    measurements: Sizes = None,
    *,
    trials: int = 20,
    tolerance: float = 1e-4,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Recovery of sparse vectors x of R^ambient from m Gaussian measurements A x, by minimising the l1 norm.

    Success: relative error below ``tolerance``. Rows: simulation, ambient, nonzero, measurements, trials, successes,
    predicted (the statistical dimension of the descent cone), seed. ``measurements``: the m, default about twenty from 1
    to ambient. A trial adds measurements to those it has, so success grows with m and is found by bisection: with
    twenty m, a trial costs at most five linear programmes (HiGHS). Raises BadInput for counts out of range, PruningError when
    a linear programme is not solved.

    >>> rows = l1_recovery(20, [1], [2, 18], trials=5, progress=False)
    >>> rows["successes"].tolist()
    [0, 5]
    """
    ambient = check("ambient", ambient, Whole(at_least=1))
    default = range(1, ambient + 1, max(ambient // 20, 1))
    chosen = _sizes("measurements", default if measurements is None else measurements, 1, ambient)
    sparse = check("nonzeros", nonzeros, Several(Whole(at_least=1, at_most=ambient), at_least=1))
    tolerance = check("tolerance", tolerance, Real(above=0))
    generator = _generator(trials, seed)
    rows = []
    with progress_bar(progress, total=len(sparse) * trials, unit="trial", desc="l1 recovery") as bar:
        for nonzero in sparse:
            first = []  # index into `chosen` from which on each trial succeeds
            for _ in range(trials):
                # Gaussian rows look alike from all sides, so the support may stand first.
                x = torch.zeros(ambient, dtype=DOUBLE)
                x[:nonzero] = torch.randn(nonzero, generator=generator, dtype=DOUBLE)
                sensing = torch.randn(chosen[-1], ambient, generator=generator, dtype=DOUBLE)
                first.append(bisect_left(chosen, True, key=partial(_recovered, sensing, x, tolerance)))
                bar.update()
            predicted = L1DescentCone(ambient, nonzero).statistical_dimension()
            about = {"simulation": "l1 recovery", "ambient": ambient, "nonzero": nonzero}
            for i, m in enumerate(chosen):
                outcome = {"trials": trials, "successes": sum(f <= i for f in first)}
                rows.append(about | {"measurements": m} | outcome | {"predicted": predicted, "seed": seed})
    return pd.DataFrame(rows)


def _recovered(sensing: Tensor, x: Tensor, tolerance: float, m: int) -> bool:
    rows = sensing[:m]
    return bool((basis_pursuit(rows, rows @ x) - x).norm() / x.norm() < tolerance)


def basis_pursuit(sensing: Tensor, measured: Tensor) -> Tensor:
    """The x with the smallest l1 norm among those with ``sensing x = measured``: (m, D), (m,) -> (D,), float64.

    As a linear programme in the positive and the negative parts of x. Raises PruningError when there is no solution.
    """
    from scipy.optimize import linprog  # slow to load

    a, cost = sensing.numpy(), np.ones(2 * sensing.shape[1])
    found = linprog(cost, A_eq=np.hstack([a, -a]), b_eq=measured.numpy(), bounds=(0, None), method="highs-ds")
    if found.x is None:
        raise PruningError(f"the linear programme of l1 recovery was not solved: {found.message}")
    positive, negative = torch.from_numpy(found.x).split(a.shape[1])
    return positive - negative


@checked
def transitions(rows: pd.DataFrame) -> pd.DataFrame:
    """Where the jump is, one row for each setting: the sizes at which 10, 50 and 90 % of the trials succeed.

    ``rows`` of one of the simulations. Columns: those of the setting, ``low``, ``middle``, ``high`` (linear interpolation
    between sizes; NaN where the sizes do not bracket the level), ``predicted`` and ``difference``, which is
    ``(middle - predicted) / ambient``. Raises BadInput for other tables.

    >>> rows = circular_cone(20, [math.pi / 4], [2, 6, 10, 14, 18], trials=5, progress=False)
    >>> len(transitions(rows))
    1
    """
    if not isinstance(rows, pd.DataFrame):
        raise BadType(f"rows must be a DataFrame, not {type(rows).__name__}.")
    along = next((name for name in ("k", "measurements") if name in rows), None)
    if along is None or not {"simulation", "ambient", "trials", "successes", "predicted"} <= set(rows):
        raise BadInput("rows of circular_cone, ellipsoid or l1_recovery are needed.")
    setting = [name for name in rows if name not in (along, *OUTCOMES)]
    found = []
    for key, cells in rows.groupby(setting, sort=False):
        cells = cells.sort_values(along)
        fractions = (cells.successes / cells.trials).to_numpy()
        low, middle, high = (_crossing(cells[along].to_numpy(), fractions, level) for level in (0.1, 0.5, 0.9))
        about = dict(zip(setting, key, strict=True))
        difference = (middle - about["predicted"]) / about["ambient"]
        found.append(about | {"low": low, "middle": middle, "high": high, "difference": difference})
    return pd.DataFrame(found)


def _crossing(sizes: np.ndarray, fractions: np.ndarray, level: float) -> float:
    reached = np.flatnonzero(fractions >= level)
    if len(reached) == 0 or reached[0] == 0:
        return math.nan
    i = int(reached[0])
    share = (level - fractions[i - 1]) / (fractions[i] - fractions[i - 1])
    return float(sizes[i - 1] + share * (sizes[i] - sizes[i - 1]))


def _sizes(name: str, sizes: Sizes, least: int, ambient: int) -> list[int]:
    ambient = check("ambient", ambient, Whole(at_least=1))
    given = range(least, ambient + 1) if sizes is None else sizes
    return sorted(set(check(name, given, Several(Whole(at_least=least, at_most=ambient), at_least=1))))


def _generator(trials: int, seed: int) -> torch.Generator:
    trials = check("trials", trials, Whole(at_least=1))
    return torch.Generator().manual_seed(check("seed", seed, Whole(at_least=0)))
