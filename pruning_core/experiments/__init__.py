"""Experiments: timelines of stages, played once, recorded, and never computed twice."""

from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import Experiment, final_state, run, run_all, study
from pruning_core.experiments.importances import importances, seconds_of_choice
from pruning_core.experiments.intervals import Interval, mean_interval, over_seeds, paired_difference
from pruning_core.experiments.network_stages import recalibrate

__all__ = [
    "Experiment", "Interval", "final_state", "importances", "mean_interval", "over_seeds", "paired_difference",
    "recalibrate", "recipes", "run", "run_all", "seconds_of_choice", "study",
]  # fmt: skip
