"""Recipes that any method can follow, and what the recipes of the chapters are put together from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from pruning_core.checks import Real, Whole, check, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.stages import (
    Every,
    Measure,
    Prune,
    RecalibrateBatchNorm,
    Repeat,
    Rewind,
    Save,
    Shrink,
    Stage,
    Train,
    to,
)
from pruning_core.masks.budgets import Budget
from pruning_core.methods.base import Method

Timeline = list[Stage]

__all__ = [
    "before_training", "cascade", "dense", "dense_one_shot", "during_training", "efficient_convnets", "iterative",
    "lottery_ticket", "magnitude_rewind_during", "prune_and_fine_tune", "prune_and_shrink", "retrain_once",
]  # fmt: skip


@checked
def dense(epochs: int) -> Timeline:
    """Training alone: what networks that are pruned before or during training are compared with, measured like them."""
    return [Train(epochs), RecalibrateBatchNorm()]


@checked
def prune_and_fine_tune(method: str | Method, sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, prune once, measure, fine-tune, measure (Han et al. 2015 with one cut)."""
    return [Train(epochs), cut_to(sparsity, method), *fine_tuned(Train(fine_tune))]


@checked
def iterative(method: str | Method, sparsity: float, epochs: int, fine_tune: int, rounds: int) -> Timeline:
    """Train, then prune a little and fine-tune, again and again; every round removes the same share of what is left."""
    cut = Prune(method, to(sparsity, method), schedule="geometric")
    return [Train(epochs), Repeat(rounds, (cut, Train(fine_tune))), Measure("fine-tuned")]


@checked
def before_training(
    method: str | Method, sparsity: float, epochs: int, steps: int | None = None, shrink: bool = False
) -> Timeline:
    """Prune the network as it was initialised, at once or in SNIP-it's ``steps + 2`` cuts, then train what is left.

    ``shrink``: dead channels are cut out before the training. After it the statistics of batch norm are measured anew: with
    few weights and a constant learning rate, running averages can be far off when the last epoch ends.
    """
    return [cut_to(sparsity, method, steps), *([Shrink()] if shrink else []), *dense(epochs)]


@checked
def during_training(
    method: str | Method,
    sparsity: float,
    epochs: int,
    steps: int = 5,
    every: int = 4,
    after: int = 5,
    shrink: bool = False,
) -> Timeline:
    """Prune in SNIP-it's ``steps + 2`` cuts after epochs ``after + every``, ``after + 2 every``, ... of the training.

    The official delay of 4 is ``after=5``, because epochs count from 0 there: cuts after 9, 13, ..., 33 epochs.
    ``shrink``: dead channels are cut out each time, and the optimizer starts anew.
    """
    cut = Prune(method, to(sparsity, method), schedule="snip_it")
    event = (cut, Shrink(fresh_optimizer=True)) if shrink else (cut,)
    return [Train(epochs, during=Every(every, event, after, snip_it_rounds(steps))), RecalibrateBatchNorm()]


@checked
def lottery_ticket(sparsity: float, epochs: int, rounds: int, early: int = 0, across: str = "global") -> Timeline:
    """Iterative magnitude pruning with rewinding to epoch ``early`` (Frankle and Carbin 2019; Frankle et al. 2020).

    ``across``: "global", one threshold for all layers, or "layer", the same fraction in each.
    """
    check_early(early, epochs)
    cut = Prune("magnitude", Budget(sparsity, across=across), schedule="geometric")
    rest = epochs - early
    return [Train(early), Save("early"), Repeat(rounds, (Train(rest), cut, Rewind("early"))), Train(rest)]


@checked
def magnitude_rewind_during(
    sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 5, early: int = 0, across: str = "global"
) -> Timeline:
    """Magnitude pruning during training, weights put back to epoch ``early`` after each cut: IMP as SNIP-it's code does it.

    Cuts come at the epochs of during_training, the first after ``early``. ``across``: "global", one threshold for all
    layers, or "layer", the same fraction in each.
    """
    check_early(early, epochs)
    cut = Prune("magnitude", Budget(sparsity, across=across), schedule="snip_it")
    every = check("every", every, Whole(at_least=1))
    # The same epochs counted from ``early``; at or before it there is nothing yet that a cut could put back.
    later = max(after - early, -((early - after) % every))
    cuts = Every(every, (cut, Rewind("early", what="weights")), later, snip_it_rounds(steps))
    return [Train(early), Save("early"), Train(epochs - early, during=cuts), RecalibrateBatchNorm()]


@checked
def prune_and_shrink(
    method: str | Method, sparsity: float, epochs: int, fine_tune: int, recalibrate: bool = False
) -> Timeline:
    """Train, remove channels, cut them out of the network, fine-tune the small one (Li et al. 2017)."""
    return [Train(epochs), cut_to(sparsity, method), Shrink(), *fine_tuned(Train(fine_tune), recalibrate)]


@checked
def efficient_convnets(sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, cut the filters of smallest norm in every layer, fine-tune (Li et al. 2017)."""
    return prune_and_shrink("efficient_convnets", sparsity, epochs, fine_tune, recalibrate=True)


@checked
def retrain_once(method: str | Method, sparsity: float, epochs: int, retrain: int) -> Timeline:
    """Train, prune the trained network, train again along the whole schedule: "retrain" of SiPP and PFP."""
    cut = Prune(method, Budget(sparsity, of="weights"))
    return [Train(epochs), cut, Measure("once pruned"), Train(retrain), Measure("once")]


@checked(after=None)
def cascade(
    method: str | Method,
    kept: Sequence[float | Sequence[float]],
    epochs: int,
    retrain: int | Train,
    after: Literal["go on", "random", "rewind"] = "go on",
    across: str = "global",
    **options,
) -> Timeline:
    """Train; prune the last retrained network further and train again, for one kept fraction after the other.

    ``kept``: fractions of the weights that stay, falling; a group in place of one stands for cuts without training in
    between, of which the last is retrained (keep_ratios.py). ``after`` a cut: "go on" with the weights, start from fresh
    "random" ones, or "rewind" to those ``retrain`` epochs before the end of the first training; what is pruned stays
    pruned. ``retrain`` may be a Train with settings of its own; ``across`` and ``options`` are those of the cuts
    (Budget, Prune). Baykal et al. 2019, Liebenwein et al. 2020.
    """
    known_name("way on after a cut", after, ("go on", "random", "rewind"))
    groups = [list(group) if isinstance(group, Sequence) else [group] for group in kept]
    falling = [check("each kept fraction", fraction, Real()) for group in groups for fraction in group]
    if not falling or any(a < b for a, b in itertools.pairwise(falling)) or not 0 < falling[-1] <= falling[0] <= 1:
        raise BadInput(f"kept fractions fall from 1 or less and stay above 0, not {falling}.")
    again = retrain if isinstance(retrain, Train) else Train(retrain)
    if after == "rewind" and not 0 < again.epochs <= epochs:
        raise BadInput(f"weights of {again.epochs} epochs before the end of {epochs} do not exist.")
    back: dict[str, Timeline] = {"go on": [], "random": [Rewind("new")], "rewind": [Rewind("early")]}
    timeline: Timeline = [Train(epochs)]
    if after == "rewind":
        timeline = [Train(epochs - again.epochs), Save("early"), Train(again.epochs)]
    for group in groups:
        timeline += [Prune(method, Budget(1 - kept, of="weights", across=across), **options) for kept in group]
        # Labels of their own: the same sparsity after other epochs is not the same measurement.
        timeline += [Measure("step pruned"), *back[after], again, Measure("step")]
    return timeline


@checked
def dense_one_shot(sparsity: float, epochs: int, method: str | Method = "magnitude") -> Timeline:
    """Train, then one cut and no fine-tuning: what l1_one_shot is compared with, by magnitude or by chance ("random")."""
    return [Train(epochs), Measure("dense"), cut_to(sparsity, method), Measure("pruned")]


def fine_tuned(training: Train, recalibrate: bool = False) -> Timeline:
    """The end of most recipes: what a cut has left is measured, trained, and measured again; batch norm first, if so asked."""
    first = [RecalibrateBatchNorm()] if recalibrate else []
    return [*first, Measure("pruned"), training, *first, Measure("fine-tuned")]


def cut_to(sparsity: float, method: str | Method, steps: int | None = None) -> Prune:
    """One cut, or with ``steps`` those of SNIP-it's schedule."""
    if steps is None:
        return Prune(method, to(sparsity, method))
    return Prune(method, to(sparsity, method), rounds=snip_it_rounds(steps), schedule="snip_it")


def snip_it_rounds(steps: int) -> int:
    """Cuts that SNIP-it makes in ``steps`` halvings: the first, the halvings, and the target itself."""
    return check("steps", steps, Whole(at_least=1)) + 2


def check_early(early: int, epochs: int) -> None:
    """Raises BadInput for weights of an epoch that the training does not have."""
    if early and early >= epochs:
        raise BadInput(f"weights cannot be put back to epoch {early} of a training of {epochs} epochs.")
