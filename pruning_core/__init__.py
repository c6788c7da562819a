"""Neural network pruning: five papers on one footing. The public names; ``plots``, ``claims``, ``records``, ``recipes`` and
``predict_limit`` are imported when they are first asked for, and pandas and scipy with them."""

from importlib import import_module

import pruning_core.starting  # noqa: F401, for what it does: before what takes seconds to import

# isort: split
from typing import TYPE_CHECKING, Any

from pruning_core.data import DATASETS, load_data, register_data
from pruning_core.errors import PruningError
from pruning_core.experiments.engine import run_all
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.runs import run
from pruning_core.experiments.stages import (
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
from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.groups import expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import remove
from pruning_core.masks.scores import Scores
from pruning_core.masks.tracing import find_groups
from pruning_core.methods import METHODS, Choice, Method, View, methods_table, register
from pruning_core.models import MODELS, build_model, register_model
from pruning_core.models.cost import count_macs, count_parameters
from pruning_core.models.export import export_network
from pruning_core.models.layers import prunable_attention
from pruning_core.models.storage import load_pruned, save_network
from pruning_core.models.timing import latency
from pruning_core.papers.rni.pipeline import prune_finetune, train
from pruning_core.pruning import PruneResult, prune
from pruning_core.training.evaluation import evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer
from pruning_core.version import __version__

if TYPE_CHECKING:
    from pruning_core.papers.how_sparse import predict_limit

__all__ = [
    "DATASETS", "METHODS", "MODELS", "Attack", "Budget", "Choice", "Each", "Every", "Experiment", "Importances",
    "LearningRate", "Load", "Masks", "Measure", "Method", "Optimizer", "Prune", "PruneResult", "PruningError",
    "RecalibrateBatchNorm", "Repeat", "Rewind", "Save", "Scores", "Shrink", "Train", "Trainer", "View",
    "__version__", "allocate", "build_model", "count_macs", "count_parameters", "evaluate", "expand",
    "export_network", "find_groups", "fit", "latency", "load_data", "load_pruned", "methods_table", "predict_limit",
    "prunable_attention", "prune", "prune_finetune", "register", "register_data", "register_model", "remove", "run",
    "run_all", "save_network", "train",
]  # fmt: skip


_ROOMS = {"claims": "book.claims", "plots": "plots", "recipes": "experiments.recipes", "records": "records"}


def __getattr__(name: str) -> Any:
    if name == "predict_limit":
        return import_module(f"{__name__}.papers.how_sparse").predict_limit
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{_ROOMS[name]}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *__all__})
