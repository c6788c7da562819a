"""What stands in a timeline in an order in which it cannot be played: found before any training."""

from collections.abc import Iterable, Iterator

from pruning_core.errors import BadInput, BudgetError
from pruning_core.experiments.stages import Each, Prune, Repeat, Rewind, Save, Shrink, Stage, Train
from pruning_core.experiments.timelines import every_stage
from pruning_core.masks.schedules import fraction_after

FALL = 0.1
"""So much less than is gone already nobody gets by rounding to whole weights and channels."""


def check_order(timeline: Iterable[Stage]) -> None:
    """Raise BadInput for a Rewind to what was not saved before, and for penalties of which each needs gates of its own.

    >>> check_order([Rewind("early")])
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: nothing was saved as 'early'; saved: init.
    """
    stages = list(timeline)
    _check_labels(stages, {"init"})
    _check_fresh(stages, False)
    trainings = [stage for stage in every_stage(stages) if isinstance(stage, Train)]
    penalised = {method.name for training in trainings for method, _ in training.penalty or ()}
    if len(gated := sorted(penalised & {"l0", "gates"})) > 1:
        raise BadInput(f"{' and '.join(gated)} each put gates of their own behind the layers: leave out one of them.")


def check_amounts(timeline: Iterable[Stage]) -> None:
    """Raise BudgetError for a Prune after which more would have to be there than before."""
    gone: dict[tuple, float] = {}
    for stage, part, i, n in _cuts(timeline):
        if stage.method.revives or stage.budget.to is None or callable(stage.schedule):
            gone.clear()
            continue
        kind = type(stage.method) if stage.method.unit == "channel" else None  # each refuses channels of its own
        place = (kind, stage.budget.of, stage.scope, part)
        rounds = [(k, stage.rounds) for k in range(1, stage.rounds + 1)] if stage.rounds > 1 else [(i, n)]
        first = fraction_after(stage.schedule, *rounds[0], stage.budget.to)
        if first < gone.get(place, 0.0) - FALL:
            raise BudgetError(
                f"a Prune by {stage.method.name!r} asks for a sparsity of {first:.4g} after one of {gone[place]:.4g}, and what "
                "is pruned stays pruned; its rounds begin anew each time that a Repeat plays it."
            )
        gone[place] = fraction_after(stage.schedule, *rounds[-1], stage.budget.to)


def _check_labels(stages: Iterable[Stage], saved: set[str]) -> None:
    for stage in stages:
        if isinstance(stage, Rewind) and stage.to not in saved | {"new"}:
            raise BadInput(f"nothing was saved as {stage.to!r}; saved: {', '.join(sorted(saved))}.")
        if isinstance(stage, Save):
            saved.add(stage.label)
        _check_labels(_held(stage), saved)


def _check_fresh(stages: Iterable[Stage], shrunk: bool) -> bool:
    """Refuse fresh weights for what was cut, and say whether something was cut in the end."""
    for stage in stages:
        if isinstance(stage, Rewind) and stage.to == "new" and shrunk:
            raise BadInput("fresh weights have the sizes of the network as built: Rewind('new') stands before Shrink.")
        shrunk = shrunk or isinstance(stage, Shrink)
        for _ in range(
            min(stage.n, 2) if isinstance(stage, Repeat) else 1
        ):  # the second begins with what the first one left
            shrunk = _check_fresh(_held(stage), shrunk)
    return shrunk


def _cuts(
    stages: Iterable[Stage], part: object = None, i: int = 1, n: int = 1
) -> Iterator[tuple[Prune, object, int, int]]:
    """The cuts in their order, with the part of the network and the round; of the parts that only a network knows one, and of
    many repetitions the first two and the last."""
    for stage in stages:
        if isinstance(stage, Prune):
            yield stage, part, i, n
        elif isinstance(stage, Repeat):
            for k in sorted({1, min(2, stage.n), stage.n}):
                yield from _cuts(stage.stages, part, k, stage.n)
        elif isinstance(stage, Each):
            for inner in [stage.parts] if isinstance(stage.parts, str) else stage.parts:
                yield from _cuts(stage.stages, inner, i, n)
        elif isinstance(stage, Train) and stage.during is not None:
            events = len(stage.during.epochs(stage.epochs))
            for k in sorted({1, min(2, events), events}):
                yield from _cuts(stage.during.stages, part, k, events)


def _held(stage: Stage) -> Iterable[Stage]:
    return getattr(stage.during if isinstance(stage, Train) else stage, "stages", ())
