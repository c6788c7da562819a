"""The geometry behind a pruning limit: cones and how large they are, Gaussian widths, and when a subspace meets a cone."""

from .cones import CircularCone, Cone, HalfSpace, L1DescentCone, Orthant, Ray, Subspace
from .limits import Kinematic, LimitBounds, kinematic, limit_bounds, normalised_width, trace_bound, window
from .widths import Ellipsoid, Estimate, gaussian_width, monte_carlo, width_bounds

__all__ = [
    "CircularCone",
    "Cone",
    "Ellipsoid",
    "Estimate",
    "HalfSpace",
    "Kinematic",
    "L1DescentCone",
    "LimitBounds",
    "Orthant",
    "Ray",
    "Subspace",
    "gaussian_width",
    "kinematic",
    "limit_bounds",
    "monte_carlo",
    "normalised_width",
    "trace_bound",
    "width_bounds",
    "window",
]  # fmt: skip
