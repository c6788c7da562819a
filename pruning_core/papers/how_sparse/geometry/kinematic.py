r"""When does a random subspace meet a cone, and how sparse can a network be: the kinematic formula and its use.

A cone C and a randomly turned cone K in R^D share a ray, or not, depending on delta(C) + delta(K) against D, up to a
window of order sqrt(D) (Amelunxen, Lotz, McCoy and Tropp 2014, theorem I). Zhang et al. 2024 (How Sparse Can We Prune a
Deep Network, zhang2024howsparse) take for C what the loss sublevel set, an ellipsoid with r_i^2 = 2 epsilon / lambda_i,
looks like from distance R, and for K the weights of a k-sparse network:

    w^2 = sum_i r_i^2 / (R^2 + r_i^2) = D G(R),          kept / D >= 1 - G(R) up to the window
"""

import math
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from pruning_core.checks import Real, Whole, check, checked, doubles
from pruning_core.errors import BadInput, known_name

NEGATIVE = ("abs", "zero", "drop")
BLOCK = 2**21  # terms of the sum at a time
_R = TypeVar("_R", float, Tensor)


@checked
def normalised_width(
    distance: _R, eigenvalues: Any, epsilon: float, weights: Any = None, null_fraction: float = 0, negative: str = "abs"
) -> _R:
    """G(R) = z + (1 - z) sum_i t_i 2 epsilon / (R^2 lambda_i + 2 epsilon) / sum_i t_i, in [0, 1], falling with R.

    ``distance``: R >= 0, a number (gives a float) or any tensor, array or sequence (gives a float64 tensor of its shape).
    ``eigenvalues``: any shape; ``weights``: t of the same shape, >= 0, not all 0, default equal. ``null_fraction``: z in
    [0, 1], the share of eigenvalues known to be 0 beside those given. A zero eigenvalue contributes 1, and G(0) = 1.
    ``negative`` eigenvalues: "abs" counts their magnitudes, as the official code does, "zero" takes them for flat
    directions, "drop" leaves them out. Raises BadInput for anything else. Zhang et al. 2024, the ellipsoid's width.

    >>> round(float(normalised_width(2.0, [1.0, 1.0], 0.5)), 3)
    0.2
    """
    tolerance = 2 * check("epsilon", epsilon, Real(above=0))
    null = check("null_fraction", null_fraction, Real(at_least=0, at_most=1))
    known_name("treatment of negative eigenvalues", negative, NEGATIVE)
    radii, spectrum = doubles("distance", distance), doubles("eigenvalues", eigenvalues)
    if bool((radii < 0).any()):
        raise BadInput("distance must not be negative.")
    shares = torch.ones_like(spectrum) if weights is None else doubles("weights", weights)
    if shares.shape != spectrum.shape:
        raise BadInput(f"weights have shape {tuple(shares.shape)}, the eigenvalues {tuple(spectrum.shape)}.")
    if bool((shares < 0).any()):
        raise BadInput("weights of eigenvalues must not be negative.")
    counted = (shares > 0) & ((spectrum >= 0) | (negative != "drop"))
    if not bool(counted.any()):
        raise BadInput("no eigenvalue is left that has a weight: there is no spectrum to measure.")
    shares = shares[counted] / (shares * counted).sum()
    spectrum = spectrum[counted].abs() if negative == "abs" else spectrum[counted].clamp(min=0)
    squares = radii.flatten().square()
    rows = max(BLOCK // len(spectrum), 1)
    parts = [(tolerance / (part[:, None] * spectrum + tolerance)) @ shares for part in squares.split(rows)]
    found: Any = (null + (1 - null) * torch.cat(parts)).clamp(max=1)
    found[squares == 0] = 1.0  # shares add up to 1 up to rounding only
    return found.reshape(radii.shape) if isinstance(distance, Tensor) or radii.dim() else float(found)


def trace_bound(distance: float, mean_eigenvalue: float, epsilon: float) -> float:
    """R^2 m / (R^2 m + 2 epsilon): at least the kept fraction 1 - G(R) of any spectrum >= 0 with mean m = Tr(H) / D.

    By concavity of x -> R^2 x / (R^2 x + 2 epsilon). Where negative eigenvalues are counted by their magnitude, m is the
    mean magnitude. Raises BadInput for a negative R or m, or epsilon <= 0.
    """
    bend = check("distance", distance, Real(at_least=0)) ** 2
    bend *= check("mean_eigenvalue", mean_eigenvalue, Real(at_least=0))
    return bend / (bend + 2 * check("epsilon", epsilon, Real(above=0)))


@checked
def window(ambient: int, eta: float) -> float:
    """a_eta sqrt(D) with a_eta = sqrt(8 ln(4 / eta)): half the width of the transition, in dimensions.

    ``eta`` in (0, 1) is the probability of being wrong outside. Raises BadInput otherwise.

    >>> round(window(100, 0.01), 1), round(window(10_000, 0.01), 1)
    (69.2, 692.3)
    """
    ambient = check("ambient", ambient, Whole(at_least=1))
    return math.sqrt(8 * math.log(4 / check("eta", eta, Real(above=0, below=1))) * ambient)


class Kinematic(NamedTuple):
    """``verdict``: "miss", "meet" or "undecided" at the asked eta; ``low`` and ``high`` bound the probability of meeting."""

    verdict: Literal["miss", "meet", "undecided"]
    low: float
    high: float


@checked
def kinematic(delta_c: float, delta_k: float, ambient: int, eta: float = 0.01) -> Kinematic:
    """Does a cone C share a ray with a randomly rotated cone K, in R^ambient with the given statistical dimensions?

    Below ``D - window`` with probability at most eta ("miss"), above ``D + window`` at least 1 - eta ("meet"). The bounds
    are the same theorem solved for the probability: with x = |delta_c + delta_k - D|, one side is 4 exp(-x^2 / (8 D)).
    Raises BadInput for a dimension outside [0, ambient]. Amelunxen et al. 2014, theorem I. (Where both are subspaces the
    answer is 0 or 1 exactly, and the theorem says less than linear algebra.)

    >>> kinematic(30, 80, 100).verdict, kinematic(2000, 2000, 10_000).verdict
    ('undecided', 'miss')
    """
    half = window(ambient, eta)
    for name, delta in (("delta_c", delta_c), ("delta_k", delta_k)):
        check(name, delta, Real(at_least=0, at_most=ambient))
    beyond = delta_c + delta_k - ambient
    tail = min(4 * math.exp(-(beyond**2) / (8 * ambient)), 1.0)
    if beyond > 0:
        return Kinematic("meet" if beyond >= half else "undecided", 1 - tail, 1.0)
    return Kinematic("miss" if -beyond >= half else "undecided", 0.0, tail)


class LimitBounds(NamedTuple):
    """Numbers of kept weights, in [0, D]: none suffices below the first, some set does above the second; and the middle."""

    impossible_below: float
    possible_above: float
    predicted: float
    window: float


@checked
def limit_bounds(
    distance: float, eigenvalues: Any, epsilon: float, ambient: int, eta: float = 0.01, *spectral: Any, **options: Any
) -> LimitBounds:
    """The two bounds on the number k of kept weights at distance R, each wrong with probability at most ``eta``.

    Impossible for ``k <= D - w^2 - a_eta sqrt(D)``, possible for ``k >= D - w^2 + a_eta sqrt(D)``, with w^2 = D G(R)
    (further arguments as of :func:`normalised_width`, from ``weights`` on), cut to [0, D]. ``predicted`` is D - w^2. Both
    rest on the ellipsoid's formula and on subspaces in general position. Zhang et al. 2024.

    >>> limit_bounds(1.0, [1.0] * 100, 0.1, 100)
    LimitBounds(impossible_below=14.100598029241922, possible_above=100.0, predicted=83.33333333333333, window=69.2327353040914)
    """
    half = window(ambient, eta)
    distance = float(check("distance", distance, Real()))
    middle = ambient - ambient * normalised_width(distance, eigenvalues, epsilon, *spectral, **options)
    return LimitBounds(max(middle - half, 0.0), min(middle + half, float(ambient)), middle, half)
