"""Neural network pruning: five papers on one footing. The public names, and nothing else."""

from .attention import prunable_attention
from .budgets import Budget, allocate
from .data import DATASETS, load_data
from .discovery import find_groups
from .errors import PruningError
from .evaluation import evaluate
from .experiment import Experiment, run, run_all
from .groups import expand, remove
from .masks import Masks
from .measure import count_macs, count_parameters, latency
from .methods import METHODS, Choice, Method, View, methods_table, register
from .models import MODELS, build_model
from .networks import load_pruned, save_network
from .optimizers import LearningRate, Optimizer
from .prunability import predict_limit
from .pruning import PruneResult, prune
from .receding import prune_finetune, train
from .scores import Scores
from .stages import (
    Attack,
    Each,
    Every,
    Importances,
    Load,
    Measure,
    Prune,
    RecalibrateBatchNorm,
    Repeat,
    Rewind,
    Save,
    Shrink,
    Train,
)
from .training import Trainer, fit
from .version import __version__

__all__ = [
    "DATASETS",
    "METHODS",
    "MODELS",
    "Attack",
    "Budget",
    "Choice",
    "Each",
    "Every",
    "Experiment",
    "Importances",
    "LearningRate",
    "Load",
    "Masks",
    "Measure",
    "Method",
    "Optimizer",
    "Prune",
    "PruneResult",
    "PruningError",
    "RecalibrateBatchNorm",
    "Repeat",
    "Rewind",
    "Save",
    "Scores",
    "Shrink",
    "Train",
    "Trainer",
    "View",
    "__version__",
    "allocate",
    "build_model",
    "count_macs",
    "count_parameters",
    "evaluate",
    "expand",
    "find_groups",
    "fit",
    "latency",
    "load_data",
    "load_pruned",
    "methods_table",
    "predict_limit",
    "prunable_attention",
    "prune",
    "prune_finetune",
    "register",
    "remove",
    "run",
    "run_all",
    "save_network",
    "train",
]  # fmt: skip
