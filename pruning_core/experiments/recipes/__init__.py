"""Each paper's pipeline as a sentence of stages, by name: the whole field on one page.

Every recipe is a function of the sparsity (the fraction removed) and of the lengths that a profile sets.
"""

from collections.abc import Callable

from pruning_core.errors import known_name
from pruning_core.experiments.recipes.chapter4 import (
    cnip_it,
    cnip_it_during,
    efficient_convnets,
    grasp,
    group_hoyer_square,
    hoyer_square,
    l0,
    magnitude_rewind_during,
    snap,
    snap_it,
    snap_it_during,
    snip,
    snip_it,
    snip_it_during,
    synflow,
    tick_tock,
)
from pruning_core.experiments.recipes.chapters import (
    ISPASP_TUNING,
    RECEDING_OPTIMIZER,
    ispasp,
    l1_in_rounds,
    l1_one_shot,
    rare_gems,
    receding,
    receding_rate,
    rigl,
    scaled_from_scratch,
    smart_ratio,
)
from pruning_core.experiments.recipes.general import (
    Timeline,
    before_training,
    cascade,
    dense,
    dense_one_shot,
    during_training,
    iterative,
    lottery_ticket,
    prune_and_fine_tune,
    prune_and_shrink,
    retrain_once,
)
from pruning_core.experiments.stages import to

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
