"""What is done with whole timelines: all stages of one, one with other stages in their place."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pruning_core.experiments.stages import Each, Repeat, Stage, Train


def every_stage(stages: Iterable[Stage]) -> Iterator[Stage]:
    """The stages, and those that they hold: inside ``during``, Each and Repeat."""
    for stage in stages:
        yield stage
        holder = stage.during if isinstance(stage, Train) else stage
        yield from every_stage(getattr(holder, "stages", ()))


def changed_stages(stages: Iterable[Stage], change: Callable[[Stage], Stage]) -> list[Stage]:
    """The stages after ``change``, those that others hold before the others themselves."""
    found = []
    for stage in stages:
        if isinstance(stage, Each | Repeat):
            stage = replace(stage, stages=tuple(changed_stages(stage.stages, change)))
        elif isinstance(stage, Train) and stage.during is not None:
            held = tuple(changed_stages(stage.during.stages, change))
            stage = replace(stage, during=replace(stage.during, stages=held))
        found.append(change(stage))
    return found
