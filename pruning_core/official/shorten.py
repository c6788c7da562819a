"""Official experiments in less time: fewer epochs with everything in proportion, fewer images, narrower, on other images.

A shortened experiment has profile "quick", so that nobody takes its rows for the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pruning_core.checks import Constraints, Maybe, Real, Whole, check_fields
from pruning_core.data.loading import surely_scored
from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS
from pruning_core.errors import known_name
from pruning_core.experiments.asked import NUMBER_OF_EPOCHS
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.stages import Every, Prune, Stage, Train
from pruning_core.experiments.timelines import changed_stages, every_stage
from pruning_core.training.optimizers import LearningRate


@dataclass(frozen=True)
class Shorter:
    """``epochs`` of the longest training, all others, events, warm-ups and milestones in proportion; ``limit`` and ``width``
    as of an Experiment; ``data`` in place of the setting's own. None: as official.

    >>> Shorter(epochs=1, limit=500, width=0.125)
    Shorter(epochs=1, limit=500, width=0.125, data=None)
    """

    constraints: ClassVar = Constraints(
        epochs=Maybe(NUMBER_OF_EPOCHS), limit=Maybe(Whole(at_least=1)), width=Maybe(Real(above=0))
    )

    epochs: int | None = None
    limit: int | None = None
    width: float | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.data is not None:
            known_name("data set", self.data, DATASETS)


def shortened(experiment: Experiment, shorter: Shorter) -> Experiment:
    """The experiment in less time; itself where nothing is asked for.

    >>> cuts = Every(10, [Prune("magnitude", 0.5)], after=10)
    >>> short = shortened(Experiment("lenet300", "digits", [Train(40, during=cuts)], profile="paper"), Shorter(epochs=4))
    >>> short.timeline[0].epochs, short.timeline[0].during.epochs(4), short.profile
    (4, [2, 3, 4], 'quick')
    """
    if shorter == Shorter():
        return experiment
    changes: dict[str, Any] = {"profile": "quick"}
    if shorter.data is not None and shorter.data != experiment.data:
        changes |= {"data": shorter.data, **_recipes(experiment, shorter.data)}
    if shorter.limit is not None:
        changes["limit"] = shorter.limit
    if shorter.width is not None:
        changes["width"] = shorter.width
    changed = replace(experiment, **changes)
    timeline: Any = changed.timeline
    trainings = [stage.epochs for stage in every_stage(timeline) if isinstance(stage, Train)]
    if shorter.epochs is not None and max(trainings, default=0) > 0:
        factor = shorter.epochs / max(trainings)
        timeline = changed_stages(timeline, lambda stage: _shorter(stage, factor))
        changed = replace(changed, learning_rate=_rate(changed.learning_rate, factor))
    if any(isinstance(stage, Prune) and stage.batches == "score" for stage in every_stage(timeline)):
        most = max(surely_scored(changed.data, changed.limit), 1)  # a plan downloads nothing
        timeline = changed_stages(timeline, lambda stage: _with_at_most(stage, most))
    return replace(changed, timeline=timeline)


def _recipes(experiment: Experiment, data: str) -> dict[str, str | None]:
    """Whose normalisation and augmentation it was, for other images, as far as they have one."""
    whose: dict[str, Mapping[str, Any]] = {"normalise": NORMALISATIONS, "augment": AUGMENTATIONS}
    wanted = {kind: f"{data}/{str(getattr(experiment, kind)).rpartition('/')[2]}" for kind in whose}
    return {kind: wanted[kind] if wanted[kind] in known else None for kind, known in whose.items()}


def _with_at_most(stage: Stage, most: int) -> Stage:
    if isinstance(stage, Prune) and stage.batches == "score":
        return replace(stage, samples=min(stage.samples, most))
    return stage


def _shorter(stage: Stage, factor: float) -> Stage:
    if not isinstance(stage, Train) or stage.epochs == 0:
        return stage
    epochs = max(1, round(stage.epochs * factor))
    during = stage.during and _events(stage.during, len(stage.during.epochs(stage.epochs)), epochs, factor)
    rate = None if stage.learning_rate is None else _rate(stage.learning_rate, factor)
    return replace(stage, epochs=epochs, during=during, learning_rate=rate)


def _events(during: Every, times: int, epochs: int, factor: float) -> Every:
    """As many events in the shorter training, as far as there is an epoch for each."""
    times = min(times, epochs)
    every = max(1, min(round(during.k * factor), epochs // times))
    after = max(1 - every, min(round(during.after * factor), epochs - every * times))
    return replace(during, k=every, after=after, times=times)


def _rate(schedule: Any, factor: float) -> Any:
    """Milestones and warm-up in proportion; of a schedule that counts iterations, the warm-up alone."""
    if isinstance(schedule, LearningRate):
        milestones = tuple(milestone * factor for milestone in schedule.milestones)
        return replace(schedule, warmup=schedule.warmup * factor, milestones=milestones)
    return replace(schedule, warmup=round(schedule.warmup * factor)) if hasattr(schedule, "warmup") else schedule
