"""What a network makes impossible in a timeline: found before anything is trained, in the words of the stages themselves."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pruning_core.experiments.network_stages import of_what_is_left, scope_of, sites_of
from pruning_core.experiments.play import trained_only
from pruning_core.experiments.stages import Importances, Prune, Shrink, Stage, Train
from pruning_core.experiments.state import State, Step
from pruning_core.experiments.timelines import every_stage
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.training.trainer import check_batch_norm


def rehearse(state: State, steps: Iterable[Step]) -> None:
    """Raise what a stage would raise at its turn for a reason that is there from the beginning: a scope that fits no layer,
    a method without channels here, a budget that no scores could meet, nothing to shrink, no gates to train.

    Training and pruning make no new layers. What earlier cuts leave of a layer is not known, so whether there is enough to
    cut is asked only while each of them leaves as much as the next one must.
    """
    seen: list[object] = []
    cuts: list[Prune] = []
    for step in steps:
        for stage in every_stage([step.stage]):
            scope = scope_of(stage, step) if isinstance(stage, Prune) else None
            if (stage, scope) in seen:
                continue
            seen.append((stage, scope))
            _rehearse(state, stage, scope, all(_leaves_enough(cut, stage) for cut in cuts))
            if isinstance(stage, Prune):
                cuts.append(stage)


def _rehearse(state: State, stage: Stage, scope: list[str] | None, as_built: bool) -> None:
    if isinstance(stage, Prune):
        method, budget = stage.method, stage.budget
        sites = sites_of(state, method, scope)
        if callable(stage.schedule) or not (as_built or isinstance(budget.across, Mapping)):
            return
        if budget.to is not None:
            budget = replace(budget, to=of_what_is_left(state, sites, budget.to, budget.of))
        method.check_possible(budget, Masks.dense(state.model, sites.weights) & state.masks, sites)
    elif isinstance(stage, Importances):
        sites_of(state, stage.method)
    elif isinstance(stage, Shrink):
        find_sites(state.model, channels=True, example_input=state.example, traced=state.traced())
    elif isinstance(stage, Train):
        (stage.optimizer or state.experiment.optimizer).build(state.model, trained_only(stage, state.model))
        check_batch_norm(state.model, min(stage.batch_size or state.experiment.batch_size, len(state.data.train)))


def _leaves_enough(cut: Prune, following: Stage) -> bool:
    """Whether every layer keeps at least as many units after ``cut`` as ``following``, if it cuts, must leave there."""
    if not isinstance(following, Prune):
        return True
    alike = cut.method.unit == following.method.unit and cut.method.spreads != "itself" and cut.method.meets_budget()
    return alike and cut.budget.keep_at_least >= following.budget.keep_at_least
