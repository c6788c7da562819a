"""RNI (chapter 3): training and pruning as the authors do it, and where scales settle under their penalty."""

from pruning_core.papers.rni.pipeline import fit_best, from_official, prune_finetune, train
from pruning_core.papers.rni.settling import receding_force, receding_threshold, settled

__all__ = [
    "fit_best", "from_official", "prune_finetune", "receding_force", "receding_threshold", "settled", "train",
]  # fmt: skip
