"""What a network makes impossible in a timeline: found before anything is trained, in the words of the stages themselves."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from pruning_core.data.loading import Data, load_data
from pruning_core.errors import PruningError
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.network_stages import of_what_is_left, scope_of, sites_of
from pruning_core.experiments.order import check_amounts
from pruning_core.experiments.play import trained_only
from pruning_core.experiments.stages import Importances, Prune, Shrink, Stage, Train
from pruning_core.experiments.state import OPTIONS_OF_DATA, State, Step, flatten, start
from pruning_core.experiments.timelines import every_stage
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.progress import progress_bar
from pruning_core.training.trainer import check_batch_norm


def rehearse_all(experiments: Sequence[Experiment], keys: Container[str], progress: bool = True) -> None:
    """Rehearse the experiments of these keys before the first of them is trained; those that differ in their seed and tags
    alone, once. Raises what :func:`rehearse` does, saying of which. Whose data cannot be had here says so at its turn.
    """
    different: dict[str, int] = {}
    for i, experiment in enumerate(experiments):
        if experiment.key in keys:
            different.setdefault(replace(experiment, seed=0, tags={}, watch=None).key, i)
    loaded: tuple[object, Data] | None = None
    with progress_bar(progress, total=len(different), desc="checking", unit="run", leave=False, delay=2) as bar:
        for i in different.values():
            bar.update()
            experiment = experiments[i]
            options = {option: getattr(experiment, option) for option in OPTIONS_OF_DATA}
            try:
                if loaded is None or loaded[0] != (experiment.data, options):
                    loaded = (experiment.data, options), load_data(experiment.data, **options)
            except PruningError:
                continue
            try:
                check_amounts(experiment.timeline)
                _rehearse_whole(start(experiment, loaded[1]))
            except PruningError as error:
                raise type(error)(f"experiment {i + 1} of {len(experiments)} cannot be played: {error}") from error


def _rehearse_whole(state: State) -> None:
    rehearse(state, flatten(state.experiment.timeline, state.model, lambda: state.traced()[0]))


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
