"""The geometry behind a pruning limit: cones and how large they are, Gaussian widths, and when a subspace meets a cone."""

from pruning_core.geometry.cones import CircularCone
from pruning_core.geometry.cones import Cone
from pruning_core.geometry.cones import HalfSpace
from pruning_core.geometry.cones import L1DescentCone
from pruning_core.geometry.cones import Orthant
from pruning_core.geometry.cones import Ray
from pruning_core.geometry.cones import Subspace
from pruning_core.geometry.limits import Kinematic
from pruning_core.geometry.limits import LimitBounds
from pruning_core.geometry.limits import kinematic
from pruning_core.geometry.limits import limit_bounds
from pruning_core.geometry.limits import normalised_width
from pruning_core.geometry.limits import trace_bound
from pruning_core.geometry.limits import window
from pruning_core.geometry.widths import Ellipsoid
from pruning_core.geometry.widths import Estimate
from pruning_core.geometry.widths import gaussian_width
from pruning_core.geometry.widths import monte_carlo
from pruning_core.geometry.widths import width_bounds

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
