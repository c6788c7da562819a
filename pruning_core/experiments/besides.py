"""What can be asked of any experiment besides what it is: another loss, a network to begin with, measuring beside each cut,
and what is watched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from pruning_core.checks import Checked, Constraints, Flag, Maybe, checked
from pruning_core.checks.constraints import A
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.fields import Becomes
from pruning_core.experiments.network_file import NetworkFile, network_file
from pruning_core.experiments.stages import Each, Measure, Prune, Repeat, Stage, Train, stages_of
from pruning_core.experiments.watching import Watch
from pruning_core.training.losses import Loss, given_loss

BEFORE, AFTER = "before cut", "after cut"


@checked
def measured_cuts(timeline: Iterable[Stage]) -> list[Stage]:
    """The timeline with a Measure("before cut") and a Measure("after cut") beside every Prune, also those inside of ``during``,
    Each and Repeat, unless there is a Measure already. All rounds of one Prune count as one cut.

    >>> from pruning_core.experiments import recipes
    >>> [getattr(stage, "label", "") for stage in measured_cuts(recipes.prune_and_fine_tune("snip", 0.9, 2, 1))]
    ['', 'before cut', '', 'pruned', '', 'fine-tuned']
    """
    return _beside(stages_of(timeline))


def _beside(stages: tuple[Stage, ...]) -> list[Stage]:
    found: list[Stage] = []
    for position, stage in enumerate(stages):
        following = stages[position + 1] if position + 1 < len(stages) else None
        if isinstance(stage, Prune):
            before = [] if found and isinstance(found[-1], Measure) else [Measure(BEFORE)]
            after = [] if isinstance(following, Measure) else [Measure(AFTER)]
            found += [*before, stage, *after]
        elif isinstance(stage, Each | Repeat):
            found.append(replace(stage, stages=tuple(_beside(stage.stages))))
        elif isinstance(stage, Train) and stage.during is not None:
            held = tuple(_beside(stage.during.stages))
            found.append(replace(stage, during=replace(stage.during, stages=held)))
        else:
            found.append(stage)
    return found


@dataclass(frozen=True)
class Besides(Checked):
    """``loss``, ``network`` and ``watch`` as of an Experiment; ``measure_cuts``: see :func:`measured_cuts`."""

    constraints = Constraints(measure_cuts=Flag(), watch=Maybe(A(Watch)))

    loss: Becomes[str | Loss | None, str | Loss | None] = Becomes(given_loss, default=None)
    network: Becomes[str | PathLike | NetworkFile | None, NetworkFile | None] = Becomes(network_file, default=None)
    measure_cuts: bool = False
    watch: Watch | None = None

    def asked_of(self, experiment: Experiment) -> Experiment:
        """The experiment with what is asked for; itself where that is nothing."""
        asked: dict[str, Any] = {n: getattr(self, n) for n in ("loss", "network", "watch")}
        changes = {name: value for name, value in asked.items() if value is not None}
        if self.measure_cuts:
            changes["timeline"] = measured_cuts(experiment.timeline)
        return replace(experiment, **changes) if changes else experiment
