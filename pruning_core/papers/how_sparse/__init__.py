"""How Sparse Can We Prune a Deep Network (Zhang et al. 2024): curvature, geometry, the predicted limit and the measured."""

from pruning_core.papers.how_sparse.configurations import configured_experiments
from pruning_core.papers.how_sparse.curvature.batches import batch_losses, loss_tolerance
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, quadrature, rademacher
from pruning_core.papers.how_sparse.curvature.measures import (
    NULL_ROW,
    Spectrum,
    exact_hessian,
    null_row_share,
    reference_density,
    spectrum,
    trace_estimate,
)
from pruning_core.papers.how_sparse.geometry.cones import CircularCone, HalfSpace, L1DescentCone, Orthant, Ray, Subspace
from pruning_core.papers.how_sparse.geometry.kinematic import kinematic, limit_bounds, normalised_width, window
from pruning_core.papers.how_sparse.geometry.widths import Ellipsoid, gaussian_width, monte_carlo
from pruning_core.papers.how_sparse.prediction import actual_limits, magnitude_distance, predict, total_variation
from pruning_core.papers.how_sparse.prunability import magnitude_curve, predict_limit
from pruning_core.papers.how_sparse.reference import reference_limit
from pruning_core.papers.how_sparse.studies import limit_row, limits_over_rounds, predictor_errors, simulated
from pruning_core.papers.how_sparse.transitions import circular_cone, ellipsoid, l1_recovery, log_uniform, transitions

__all__ = [
    "NULL_ROW", "CircularCone", "Ellipsoid", "HalfSpace", "Hessian", "L1DescentCone", "Orthant", "Ray", "Spectrum",
    "Subspace", "actual_limits", "batch_losses", "circular_cone", "configured_experiments", "ellipsoid", "exact_hessian",
    "gaussian_width", "kinematic", "l1_recovery", "lanczos", "limit_bounds", "limit_row", "limits_over_rounds",
    "log_uniform", "loss_tolerance", "magnitude_curve", "magnitude_distance", "monte_carlo", "normalised_width",
    "null_row_share", "predict", "predict_limit", "predictor_errors", "quadrature", "rademacher", "reference_density",
    "reference_limit", "simulated", "spectrum", "total_variation", "trace_estimate", "transitions", "window",
]  # fmt: skip
