r"""Convex cones, their statistical dimension and their projections.

The statistical dimension of a closed convex cone C in R^D says how large it is, as the dimension does for subspaces:

    delta(C) = E ||Pi_C(g)||^2,     g ~ N(0, I_D),     Pi_C = Euclidean projection onto C

It does not change when the cone is rotated, so every cone here stands in its simplest position: along the first axis, or
with the first coordinates as its support. Amelunxen, Lotz, McCoy and Tropp 2014, Living on the edge.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import betainc, betaln, erfc, erfcx
from torch import Tensor

from pruning_core.checks import Constraints, Real, Whole, check, check_fields, checked, doubles
from pruning_core.errors import BadInput


@dataclass(frozen=True)
class Cone:
    """A closed convex cone in R^ambient; raises BadType or BadInput when that is not an integer of at least 1."""

    constraints = Constraints(ambient=Whole(at_least=1))

    ambient: int

    def __post_init__(self) -> None:
        check_fields(self)

    def statistical_dimension(self) -> float:
        """delta(C), in [0, ambient]; exact but for :class:`L1DescentCone`."""
        raise NotImplementedError

    def project(self, points: Any) -> Tensor:
        """The nearest point of the cone for every row, (n, ambient), float64; BadInput for other shapes or NaN."""
        given = doubles("points", points)
        if given.dim() != 2 or given.shape[1] != self.ambient:
            raise BadInput(f"points must have shape (n, {self.ambient}), not {tuple(given.shape)}.")
        return self._project(given)

    def _project(self, points: Tensor) -> Tensor:
        raise NotImplementedError


@checked(dimension=None)
@dataclass(frozen=True)
class Subspace(Cone):
    """The span of the first ``dimension`` axes; 0 is the origin alone. delta = dimension.

    >>> round(Subspace(10, 3).statistical_dimension(), 2)
    3.0
    """

    dimension: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check("dimension", self.dimension, Whole(at_least=0, at_most=self.ambient))

    def statistical_dimension(self) -> float:
        return float(self.dimension)

    def _project(self, points: Tensor) -> Tensor:
        return points * (torch.arange(self.ambient) < self.dimension)


@checked
@dataclass(frozen=True)
class Orthant(Cone):
    """All vectors without a negative entry. delta = D / 2.

    >>> round(Orthant(10).statistical_dimension(), 2)
    5.0
    """

    def statistical_dimension(self) -> float:
        return self.ambient / 2

    def _project(self, points: Tensor) -> Tensor:
        return points.clamp(min=0)


@checked
@dataclass(frozen=True)
class HalfSpace(Cone):
    """All vectors whose first entry is not negative. delta = D - 1/2.

    >>> round(HalfSpace(10).statistical_dimension(), 2)
    9.5
    """

    def statistical_dimension(self) -> float:
        return self.ambient - 0.5

    def _project(self, points: Tensor) -> Tensor:
        return torch.cat([points[:, :1].clamp(min=0), points[:, 1:]], 1)


@checked
@dataclass(frozen=True)
class Ray(Cone):
    """The non-negative multiples of the first axis. delta = 1/2.

    >>> round(Ray(10).statistical_dimension(), 2)
    0.5
    """

    def statistical_dimension(self) -> float:
        return 0.5

    def _project(self, points: Tensor) -> Tensor:
        return torch.cat([points[:, :1].clamp(min=0), torch.zeros_like(points[:, 1:])], 1)


@dataclass(frozen=True)
class CircularCone(Cone):
    """All vectors within ``angle`` (radians, 0 to pi/2) of the first axis, D > 1. delta is about D sin^2(angle).

    >>> round(CircularCone(100, math.pi / 4).statistical_dimension(), 2)
    50.0
    """

    constraints = Constraints(ambient=Whole(at_least=2), angle=Real(at_least=0, at_most=math.pi / 2))

    angle: float

    def statistical_dimension(self) -> float:
        """An exact integral over the angle phi between g and the axis, whose density is sin^(D-2) phi up to a factor.

        The norm of g is independent of phi, with mean square D. A vector of norm 1 projects to norm 1 inside the cone,
        to cos(phi - angle) up to a right angle beyond its surface, and to 0 in the polar cone. Relative error about 1e-10.
        """
        from scipy.integrate import quad  # slow to load

        d, angle = self.ambient, float(self.angle)
        inside = float(betainc((d - 1) / 2, 0.5, math.sin(angle) ** 2)) / 2
        scale = math.exp(-betaln((d - 1) / 2, 0.5))
        # With theta = phi - pi/2 the density is cos^(D-2) theta < exp(-(D-2) theta^2 / 2): nothing is left beyond `reach`.
        reach = 40 / math.sqrt(max(d - 2, 1))
        low, high = max(angle - math.pi / 2, -reach), min(angle, reach)

        def density(theta: float) -> float:
            return math.sin(angle - theta) ** 2 * math.cos(theta) ** (d - 2) * scale

        parts = [ends for ends in ((low, 0.0), (0.0, high)) if ends[0] < ends[1]]
        outside = sum(quad(density, *ends, epsabs=0, epsrel=1e-11, limit=200)[0] for ends in parts)
        return d * (inside + outside)

    def _project(self, points: Tensor) -> Tensor:
        along, across = points[:, :1], points[:, 1:]
        height = across.norm(dim=1, keepdim=True)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        length = (along * cosine + height * sine).clamp(min=0)  # of the projection onto the surface
        direction = across / height.clamp(min=torch.finfo(points.dtype).tiny)
        surface = torch.cat([length * cosine, length * sine * direction], 1)
        return torch.where(height * cosine <= along * sine, points, surface)


@checked
@dataclass(frozen=True)
class L1DescentCone(Cone):
    """The directions in which the l1 norm does not grow, from a point whose first ``nonzero`` entries are positive.

    The others are 0; sizes play no role. The cone is {0} for nonzero = 0 and a half space for nonzero = ambient.

    >>> round(L1DescentCone(100, 5).statistical_dimension(), 2)
    20.39
    """

    nonzero: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check("nonzero", self.nonzero, Whole(at_least=0, at_most=self.ambient))

    def statistical_dimension(self) -> float:
        """An upper bound, at most 2 sqrt(D / s) too high: the minimum over t >= 0 of E dist^2(g, t * subdifferential).

        Amelunxen et al. 2014, section 4: with s non-zeros the mean is ``s (1 + t^2) + (D - s) E (|g| - t)_+^2``, and the
        minimum is where ``s t = (D - s) E (|g| - t)_+``. Exact where the cone is {0} or a half space. The excess is twice
        the largest norm of a subgradient over the l1 norm of the flattest unit vector.
        """
        d, s = self.ambient, self.nonzero
        if s == 0:
            return 0.0
        if s == d:
            return d - 0.5
        from scipy.optimize import brentq  # slow to load

        # The root lies below (d - s) / s, since E (|g| - t)_+ <= E |g| < 1.
        t = brentq(lambda t: s * t - (d - s) * _mean_beyond(t), 0.0, (d - s) / s, xtol=1e-14, rtol=1e-14)
        return s * (1 + t * t) + (d - s) * _square_beyond(t)

    def _project(self, points: Tensor) -> Tensor:
        # By Moreau: the point less its projection onto the polar cone, the multiples t >= 0 of subgradients. Those are
        # (t, .., t) on the support and anything within [-t, t] elsewhere, and the best t is where
        # s t = sum over the support of g + sum elsewhere of (|g| - t)_+ : an average of the support with the largest others.
        s = self.nonzero
        if s == 0:
            return torch.zeros_like(points)
        others = points[:, s:]
        totals = torch.cat([points[:, :s].sum(1, keepdim=True), others.abs().sort(1, descending=True).values], 1)
        averages = totals.cumsum(1) / torch.arange(s, self.ambient + 1)
        t = averages.amax(1, keepdim=True).clamp(min=0)  # one more entry raises the average while it is above it
        return torch.cat([points[:, :s] - t, others - torch.maximum(torch.minimum(others, t), -t)], 1)


def _mean_beyond(t: float) -> float:
    """E (|g| - t)_+ for g ~ N(0, 1); scaled, so that it does not cancel for large t."""
    density = math.exp(-t * t / 2) * math.sqrt(2 / math.pi)
    return density * (1 - t * math.sqrt(math.pi / 2) * float(erfcx(t / math.sqrt(2))))


def _square_beyond(t: float) -> float:
    """E (|g| - t)_+^2 for g ~ N(0, 1)."""
    return (1 + t * t) * float(erfc(t / math.sqrt(2))) - t * math.sqrt(2 / math.pi) * math.exp(-t * t / 2)
