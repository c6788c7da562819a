"""How Sparse Can We Prune a Deep Network (Zhang et al. 2024): curvature, geometry, the predicted limit and the measured."""

from pruning_core.papers.how_sparse.configurations import official_experiments
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos
from pruning_core.papers.how_sparse.curvature.lanczos import quadrature
from pruning_core.papers.how_sparse.curvature.lanczos import rademacher
from pruning_core.papers.how_sparse.curvature.measures import NULL_ROW
from pruning_core.papers.how_sparse.curvature.measures import batch_losses
from pruning_core.papers.how_sparse.curvature.measures import exact_hessian
from pruning_core.papers.how_sparse.curvature.measures import loss_tolerance
from pruning_core.papers.how_sparse.curvature.measures import null_row_share
from pruning_core.papers.how_sparse.curvature.measures import spectrum
from pruning_core.papers.how_sparse.curvature.measures import trace_estimate
from pruning_core.papers.how_sparse.curvature.spectrum import Spectrum
from pruning_core.papers.how_sparse.curvature.spectrum import reference_density
from pruning_core.papers.how_sparse.geometry.cones import CircularCone
from pruning_core.papers.how_sparse.geometry.cones import HalfSpace
from pruning_core.papers.how_sparse.geometry.cones import L1DescentCone
from pruning_core.papers.how_sparse.geometry.cones import Orthant
from pruning_core.papers.how_sparse.geometry.cones import Ray
from pruning_core.papers.how_sparse.geometry.cones import Subspace
from pruning_core.papers.how_sparse.geometry.kinematic import kinematic
from pruning_core.papers.how_sparse.geometry.kinematic import limit_bounds
from pruning_core.papers.how_sparse.geometry.kinematic import normalised_width
from pruning_core.papers.how_sparse.geometry.kinematic import window
from pruning_core.papers.how_sparse.geometry.widths import Ellipsoid
from pruning_core.papers.how_sparse.geometry.widths import gaussian_width
from pruning_core.papers.how_sparse.geometry.widths import monte_carlo
from pruning_core.papers.how_sparse.measured import actual_limits
from pruning_core.papers.how_sparse.measured import total_variation
from pruning_core.papers.how_sparse.prediction import magnitude_distance
from pruning_core.papers.how_sparse.prediction import predict
from pruning_core.papers.how_sparse.prunability import magnitude_curve
from pruning_core.papers.how_sparse.prunability import predict_limit
from pruning_core.papers.how_sparse.studies import limit_row
from pruning_core.papers.how_sparse.studies import limits_over_rounds
from pruning_core.papers.how_sparse.studies import predictor_errors
from pruning_core.papers.how_sparse.transitions import circular_cone
from pruning_core.papers.how_sparse.transitions import ellipsoid
from pruning_core.papers.how_sparse.transitions import l1_recovery
from pruning_core.papers.how_sparse.transitions import log_uniform
from pruning_core.papers.how_sparse.transitions import transitions

__all__ = [
    "NULL_ROW", "CircularCone", "Ellipsoid", "HalfSpace", "Hessian", "L1DescentCone", "Orthant", "Ray", "Spectrum", "Subspace",
    "actual_limits", "batch_losses", "circular_cone", "ellipsoid", "exact_hessian", "gaussian_width", "kinematic",
    "l1_recovery", "lanczos", "limit_bounds", "limit_row", "limits_over_rounds", "log_uniform", "loss_tolerance",
    "magnitude_curve", "magnitude_distance", "monte_carlo", "normalised_width", "null_row_share", "official_experiments",
    "predict", "predict_limit", "predictor_errors", "quadrature", "rademacher", "reference_density", "spectrum",
    "total_variation", "trace_estimate", "transitions", "window",
]  # fmt: skip
