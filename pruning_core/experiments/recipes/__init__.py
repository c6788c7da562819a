"""Each paper's pipeline as a sentence of stages, by name: the whole field on one page.

Every recipe is a function of the sparsity (the fraction removed) and of the lengths that a profile sets.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pruning_core.checks import checked
from pruning_core.errors import known_name
from pruning_core.experiments.recipes import chapters, general
from pruning_core.experiments.recipes.chapters import *  # noqa: F403
from pruning_core.experiments.recipes.chapters import ISPASP_TUNING, RECEDING_OPTIMIZER, receding_rate
from pruning_core.experiments.recipes.general import *  # noqa: F403
from pruning_core.experiments.recipes.general import Timeline
from pruning_core.experiments.stages import Prune, to
from pruning_core.experiments.timelines import changed_stages

RECIPES: dict[str, Callable[..., Timeline]] = {
    name: getattr(file, name) for file in (general, chapters) for name in file.__all__
}

__all__ = ["ISPASP_TUNING", "RECEDING_OPTIMIZER", "RECIPES", "Timeline", "looking_at", "receding_rate", "recipe", "to"]


@checked
def recipe(name: str, *arguments, **options) -> Timeline:
    """The timeline of that name; see RECIPES for the functions and what they take.

    >>> [type(stage).__name__ for stage in recipe("snip", 0.9, 5)]
    ['Prune', 'Train', 'RecalibrateBatchNorm']
    """
    return RECIPES[known_name("recipe", name, RECIPES)](*arguments, **options)


@checked
def looking_at(timeline: Timeline, samples: int | None, batch_size: int = 128) -> Timeline:
    """The timeline whose cuts look at so many images, in batches of ``batch_size``; None: the timeline as it is.

    >>> looking_at([Prune("snip", 0.9)], 2560, 512)[0].samples
    2560
    """
    if samples is None:
        return timeline
    how: dict[str, Any] = {"samples": samples, "batch_size": batch_size}
    return changed_stages(timeline, lambda stage: replace(stage, **how) if isinstance(stage, Prune) else stage)
