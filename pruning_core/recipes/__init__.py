"""Each paper's pipeline as a sentence of stages, by name: the whole field on one page.

Every recipe is a function of the sparsity (the fraction removed) and of the lengths that a profile sets.
"""

from collections.abc import Callable

from pruning_core.errors import known_name
from pruning_core.recipes.chapter4 import cnip_it
from pruning_core.recipes.chapter4 import cnip_it_during
from pruning_core.recipes.chapter4 import efficient_convnets
from pruning_core.recipes.chapter4 import grasp
from pruning_core.recipes.chapter4 import group_hoyer_square
from pruning_core.recipes.chapter4 import hoyer_square
from pruning_core.recipes.chapter4 import l0
from pruning_core.recipes.chapter4 import magnitude_rewind_during
from pruning_core.recipes.chapter4 import snap
from pruning_core.recipes.chapter4 import snap_it
from pruning_core.recipes.chapter4 import snap_it_during
from pruning_core.recipes.chapter4 import snip
from pruning_core.recipes.chapter4 import snip_it
from pruning_core.recipes.chapter4 import snip_it_during
from pruning_core.recipes.chapter4 import synflow
from pruning_core.recipes.chapter4 import tick_tock
from pruning_core.recipes.chapters import ISPASP_TUNING
from pruning_core.recipes.chapters import RECEDING_OPTIMIZER
from pruning_core.recipes.chapters import ispasp
from pruning_core.recipes.chapters import l1_in_rounds
from pruning_core.recipes.chapters import l1_one_shot
from pruning_core.recipes.chapters import rare_gems
from pruning_core.recipes.chapters import receding
from pruning_core.recipes.chapters import receding_rate
from pruning_core.recipes.chapters import rigl
from pruning_core.recipes.chapters import scaled_from_scratch
from pruning_core.recipes.chapters import smart_ratio
from pruning_core.recipes.general import Timeline
from pruning_core.recipes.general import before_training
from pruning_core.recipes.general import cascade
from pruning_core.recipes.general import dense
from pruning_core.recipes.general import dense_one_shot
from pruning_core.recipes.general import during_training
from pruning_core.recipes.general import iterative
from pruning_core.recipes.general import lottery_ticket
from pruning_core.recipes.general import prune_and_fine_tune
from pruning_core.recipes.general import prune_and_shrink
from pruning_core.recipes.general import retrain_once
from pruning_core.recipes.general import to

RECIPES: dict[str, Callable[..., Timeline]] = {
    function.__name__: function
    for function in (
        dense, prune_and_fine_tune, iterative, before_training, during_training, snip, snip_it, snip_it_during,
        snap, snap_it, snap_it_during, cnip_it, cnip_it_during, grasp, synflow, magnitude_rewind_during,
        lottery_ticket, prune_and_shrink, ispasp, retrain_once, cascade, receding, scaled_from_scratch, l0,
        hoyer_square, group_hoyer_square, efficient_convnets, tick_tock, l1_one_shot, dense_one_shot, l1_in_rounds,
        smart_ratio, rigl, rare_gems,
    )
}  # fmt: skip

__all__ = ["ISPASP_TUNING", "RECEDING_OPTIMIZER", "RECIPES", "Timeline", "receding_rate", "recipe", "to"]


def recipe(name: str, *arguments, **options) -> Timeline:
    """The timeline of that name; see RECIPES for the functions and what they take."""
    return RECIPES[known_name("recipe", name, RECIPES)](*arguments, **options)
