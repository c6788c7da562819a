"""The recipes of chapter 4: SNIP-it's methods and what its paper compares them with."""

from __future__ import annotations

from dataclasses import replace

from pruning_core.checks import Whole, check
from pruning_core.experiments.recipes.general import (
    Timeline,
    before_training,
    check_early,
    cut_to,
    during_training,
    fine_tuned,
    prune_and_shrink,
    snip_it_rounds,
)
from pruning_core.experiments.stages import Every, Prune, Rewind, Save, Shrink, Train, to
from pruning_core.masks.budgets import Budget
from pruning_core.masks.schedules import fraction_after, tick_tock_rounds


def snip(sparsity: float, epochs: int) -> Timeline:
    """One cut by elasticity, then training (Lee et al. 2019)."""
    return before_training("snip", sparsity, epochs)


def snip_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """The same cut in steps, each on what the last one left, then training (Verdenius et al. 2020)."""
    return before_training("snip", sparsity, epochs, steps)


def snip_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4) -> Timeline:
    """The steps of SNIP-it spread over the training (Verdenius et al. 2020)."""
    return during_training("snip", sparsity, epochs, steps, every, after)


def snap(sparsity: float, epochs: int) -> Timeline:
    """One cut of whole channels by elasticity; the smaller network is trained (Verdenius et al. 2020)."""
    return before_training("snap", sparsity, epochs, shrink=True)


def snap_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """The cut of whole channels in steps; the smaller network is trained (Verdenius et al. 2020)."""
    return before_training("snap", sparsity, epochs, steps, shrink=True)


def snap_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4) -> Timeline:
    """Channels go during training; the network shrinks each time, and the optimizer starts anew (Verdenius et al. 2020)."""
    return during_training("snap", sparsity, epochs, steps, every, after, shrink=True)


def cnip_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """Weights and channels by one threshold, in steps, then training (Verdenius et al. 2020)."""
    return before_training("cnip", sparsity, epochs, steps, shrink=True)


def cnip_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4) -> Timeline:
    """Weights and channels by one threshold, during training (Verdenius et al. 2020)."""
    return during_training("cnip", sparsity, epochs, steps, every, after, shrink=True)


def grasp(sparsity: float, epochs: int) -> Timeline:
    """One cut that keeps the gradient flowing, then training (Wang et al. 2020)."""
    return before_training("grasp", sparsity, epochs)


def synflow(sparsity: float, epochs: int) -> Timeline:
    """A hundred small cuts without data, then training (Tanaka et al. 2020)."""
    return before_training("synflow", sparsity, epochs)


def magnitude_rewind_during(
    sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4, early: int = 0, across: str = "global"
) -> Timeline:
    """Magnitude pruning during training, weights put back to epoch ``early`` after each cut: IMP as SNIP-it's code does it.

    ``across``: "global", one threshold for all layers, or "layer", the same fraction in each.
    """
    check_early(early, epochs)
    cut = Prune("magnitude", replace(to(sparsity, "magnitude"), across=across), schedule="snip_it")
    cuts = Every(every, (cut, Rewind("early", what="weights")), max(after - early, 0), snip_it_rounds(steps))
    return [Train(early), Save("early"), Train(epochs - early, during=cuts)]


def l0(strength: float, epochs: int, fine_tune: int) -> Timeline:
    """Train with gates, remove what the gates have shut, fine-tune (Louizos et al. 2018)."""
    return _penalised("l0", strength, epochs, fine_tune, Budget(below=0.0, of="channels"))


def hoyer_square(strength: float, epochs: int, fine_tune: int, below: float = 1e-3) -> Timeline:
    """Train with the Hoyer-Square penalty, remove all weights that became small, fine-tune (Yang et al. 2020)."""
    return _penalised("hoyer_square", strength, epochs, fine_tune, Budget(below=below))


def group_hoyer_square(strength: float, epochs: int, fine_tune: int, below: float = 1e-3) -> Timeline:
    """Train with the group penalty, cut out the channels that became small, fine-tune (Yang et al. 2020)."""
    budget = Budget(below=below, of="channels")
    return _penalised("group_hoyer_square", strength, epochs, fine_tune, budget, shrink=True)


def efficient_convnets(sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, cut the filters of smallest norm in every layer, fine-tune (Li et al. 2017)."""
    return prune_and_shrink("efficient_convnets", sparsity, epochs, fine_tune)


def tick_tock(
    sparsity: float, epochs: int, fine_tune: int, ticks: int = 10, tocks: int = 10, strength: float = 1e-3
) -> Timeline:
    """Train; tick: train the gates, cut, again and again; tock: train everything and pull the gates to zero; fine-tune
    (You et al. 2019). One cut comes before the first tick; the targets rise by 0.05 a cut."""
    ticks = check("ticks", ticks, Whole(at_least=1))
    rounds = tick_tock_rounds(sparsity)
    targets = [fraction_after("tick_tock", i, rounds, sparsity) for i in range(1, rounds + 1)]
    timeline: Timeline = [Train(epochs, only="weights"), cut_to(targets[0], "gates")]
    for start in range(1, rounds, ticks):
        for target in targets[start : start + ticks]:
            timeline += [Train(1, only="gates"), cut_to(target, "gates")]
        # Gates included: the penalty depends on nothing else, so with frozen gates it would do nothing.
        timeline.append(Train(tocks, penalty=("gates", strength)))
    return [*timeline, Shrink(), *fine_tuned(Train(fine_tune))]


def _penalised(
    method: str, strength: float, epochs: int, fine_tune: int, budget: Budget, shrink: bool = False
) -> Timeline:
    """Train with the method's penalty, cut once, fine-tune without it."""
    cut: Timeline = [Prune(method, budget), *([Shrink()] if shrink else [])]
    return [Train(epochs, penalty=(method, strength)), *cut, *fine_tuned(Train(fine_tune))]
