"""SiPP and PFP (Baykal et al. 2019, Liebenwein et al. 2020): estimators, guarantee, and the official experiments."""

from pruning_core.papers.sipp_pfp.commensurate import commensurate_table
from pruning_core.papers.sipp_pfp.guarantee import (
    draws_needed,
    equal_error,
    error_promised,
    estimator_rows,
    guarantee_table,
    probabilities,
    relative_errors,
)
from pruning_core.papers.sipp_pfp.official import official_experiments
from pruning_core.papers.sipp_pfp.parameter_files import PARAMETER_FILES, kept_fractions, retrained
from pruning_core.papers.sipp_pfp.tags import SippTags

__all__ = [
    "PARAMETER_FILES", "SippTags", "commensurate_table", "draws_needed", "equal_error", "error_promised", "estimator_rows",
    "guarantee_table", "kept_fractions", "official_experiments", "probabilities", "relative_errors", "retrained",
]  # fmt: skip
