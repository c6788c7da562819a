"""Training: steps on weights under masks, evaluation, and attacks on what was trained."""

from pruning_core.training.attacks import ATTACKS, attack
from pruning_core.training.evaluation import computes_bfloat16, confusion_matrix, evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.tensorboard import TensorBoard
from pruning_core.training.trainer import Trainer

__all__ = [
    "ATTACKS",
    "LearningRate",
    "Optimizer",
    "TensorBoard",
    "Trainer",
    "attack",
    "computes_bfloat16",
    "confusion_matrix",
    "evaluate",
    "fit",
]
