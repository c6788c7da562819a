r"""Gaussian widths, of cones and of ellipsoids, by Monte Carlo, and for ellipsoids exactly.

    w(T) = 1/2 E sup_{x, y in T} <g, x - y> = E sup_{x in T} <g, x>,     g ~ N(0, I)

A cone is cut with the unit ball, which gives w = E ||Pi_C(g)||. The cut with the unit sphere has the same width but for
draws that fall into the polar cone. Both satisfy w^2 <= delta(C) <= w^2 + 1 (Amelunxen et al. 2014, proposition 10.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pruning_core.checks import DOUBLE, Real, Whole, check, checked, doubles, generator_of
from pruning_core.errors import BadInput, BadType
from pruning_core.papers.how_sparse.geometry.cones import Cone

BLOCK = 2**21  # random numbers at a time


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error."""

    mean: float
    standard_error: float


@checked(radii=None)
@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """``{x: sum x_i^2 / r_i^2 <= 1}`` with the semi-axes ``radii`` (D,), at least 0 and finite; BadInput for others.

    >>> Ellipsoid(torch.tensor([1.0, 2.0])).radii
    tensor([1., 2.], dtype=torch.float64)
    """

    radii: Tensor

    def __post_init__(self) -> None:
        radii = doubles("radii", self.radii)
        if radii.dim() != 1 or bool((radii < 0).any()):
            raise BadInput("radii must be one vector of numbers that are not negative.")
        object.__setattr__(self, "radii", radii)

    @classmethod
    def of_sublevel(cls, eigenvalues: Any, epsilon: float) -> "Ellipsoid":
        """Where the quadratic ``x' H x / 2`` is at most ``epsilon``: r_i = sqrt(2 epsilon / lambda_i).

        Raises BadInput for an eigenvalue that is not positive (the set is then unbounded), or epsilon <= 0.
        """
        spectrum = doubles("eigenvalues", eigenvalues)
        if bool((spectrum <= 0).any()):
            raise BadInput("the sublevel set is an ellipsoid for positive eigenvalues only; some are zero or negative.")
        return cls((2 * check("epsilon", epsilon, Real(above=0)) / spectrum).sqrt())

    def exact_width(self) -> float:
        """w = E sqrt(Q) with Q = sum r_i^2 g_i^2, by one integral over the Laplace transform of Q; to about 1e-9.

        ``E sqrt(Q) = 1/sqrt(pi) int_0^inf (1 - E exp(-u^2 Q)) / u^2 du``, ``E exp(-u^2 Q) = prod (1 + 2 u^2 r_i^2)^(-1/2)``.
        """
        from scipy.integrate import quad  # slow to load

        size = float(self.radii.norm())
        if size == 0:
            return 0.0
        squares = (self.radii / size).square().numpy()

        def integrand(u: float) -> float:
            return -math.expm1(-0.5 * float(np.log1p(2 * u * u * squares).sum())) / (u * u) if u else 1.0

        # 1 at u = 0 and 1 / u^2 far out, so the scale of the integrand is 1.
        parts = [quad(integrand, 0, 1, epsrel=1e-10), quad(integrand, 1, np.inf, epsrel=1e-10, limit=200)]
        return size * sum(value for value, _ in parts) / math.sqrt(math.pi)


@checked(cone=None)
def monte_carlo(cone: Cone, draws: int, generator: torch.Generator) -> Estimate:
    """The statistical dimension E ||Pi_C(g)||^2 from ``draws`` >= 2 Gaussian vectors.

    Raises BadType for what is no cone or no generator, BadInput for fewer than two draws.

    >>> from pruning_core.papers.how_sparse import Orthant
    >>> round(monte_carlo(Orthant(100), 500, torch.Generator().manual_seed(0)).mean)
    50
    """
    if not isinstance(cone, Cone):
        raise BadType(f"a cone is needed, not {type(cone).__name__}.")
    return _estimate(lambda g: cone.project(g).square().sum(1), cone.ambient, draws, generator)


@checked(body=None)
def gaussian_width(body: Cone | Ellipsoid, draws: int, generator: torch.Generator) -> Estimate:
    """Monte Carlo of w: E ||Pi_C(g)|| of a cone (cut with the unit ball), E sqrt(sum r_i^2 g_i^2) of an ellipsoid.

    Raises BadType for another body or no generator, BadInput for fewer than two draws.

    >>> ball = Ellipsoid(torch.ones(100))
    >>> round(gaussian_width(ball, 200, torch.Generator().manual_seed(0)).mean)
    10
    """
    if isinstance(body, Ellipsoid):
        return _estimate(lambda g: (g * body.radii).norm(dim=1), len(body.radii), draws, generator)
    if not isinstance(body, Cone):
        raise BadType(f"a cone or an ellipsoid is needed, not {type(body).__name__}.")
    return _estimate(lambda g: body.project(g).norm(dim=1), body.ambient, draws, generator)


def _estimate(value: Callable[[Tensor], Tensor], ambient: int, draws: int, generator: torch.Generator) -> Estimate:
    """Mean of ``value`` over Gaussian vectors, in blocks of bounded memory."""
    draws = check("draws", draws, Whole(at_least=2))
    generator_of(generator)
    size = max(BLOCK // ambient, 1)
    blocks = [min(size, draws - start) for start in range(0, draws, size)]
    found = torch.cat([value(torch.randn(n, ambient, generator=generator, dtype=DOUBLE)) for n in blocks])
    return Estimate(float(found.mean()), float(found.std()) / math.sqrt(draws))
