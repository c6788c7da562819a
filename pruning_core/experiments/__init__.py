"""Experiments: timelines of stages, played once, recorded, and never computed twice."""

from pruning_core.experiments import recipes
from pruning_core.experiments.besides import measured_cuts
from pruning_core.experiments.engine import ExperimentsFailed, run_all
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.importances import importances, seconds_of_choice
from pruning_core.experiments.intervals import Interval, mean_interval, over_seeds, paired_difference
from pruning_core.experiments.network_stages import recalibrate
from pruning_core.experiments.observers import Elasticities, SignFlips, WeightStatistics
from pruning_core.experiments.runs import final_state, run
from pruning_core.experiments.studies import study
from pruning_core.experiments.watching import Watch

__all__ = [
    "Elasticities", "Experiment", "ExperimentsFailed", "Interval", "SignFlips", "Watch", "WeightStatistics", "final_state",
    "importances", "mean_interval", "measured_cuts", "over_seeds", "paired_difference", "recalibrate", "recipes", "run",
    "run_all", "seconds_of_choice", "study",
]  # fmt: skip
