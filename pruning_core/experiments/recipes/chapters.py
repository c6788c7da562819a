"""The recipes of chapters 1 (i-SpaSP), 3 (receding neuron importances), 4 (SNIP-it's methods and what its paper compares
them with) and 5 (How Sparse Can We Prune)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from pruning_core.checks import Real, Whole, checked
from pruning_core.errors import BadInput
from pruning_core.experiments.recipes.general import Timeline, before_training, cut_to, during_training, fine_tuned
from pruning_core.experiments.stages import Each, Every, Importances, Measure, Prune, Rewind, Shrink, Train, to
from pruning_core.masks.budgets import Budget
from pruning_core.masks.schedules import fraction_after, tick_tock_rounds
from pruning_core.methods.base import Method, as_method
from pruning_core.methods.rare_gems import RareGems
from pruning_core.methods.rigl import Rigl
from pruning_core.training.optimizers import LearningRate, Optimizer

__all__ = [
    "cnip_it", "cnip_it_during", "grasp", "group_hoyer_square", "hoyer_square", "ispasp", "l0", "l1_in_rounds",
    "l1_one_shot", "rare_gems", "receding", "rigl", "scaled_from_scratch", "smart_ratio", "snap", "snap_it",
    "snap_it_during", "snip", "snip_it", "snip_it_during", "synflow", "tick_tock",
]  # fmt: skip

ISPASP_TUNING = Optimizer("sgd", lr=0.01, nesterov=True, weight_decay=5e-4, decay_norm_and_bias=False)
"""The authors' optimizer after a cut, for ResNet-34; for MobileNetV2 the weight decay is 4e-5."""


@checked
def ispasp(
    sparsity: float | Mapping[str, float],
    epochs: int,
    fine_tune: int,
    between: int = 1,
    method: str | Method = "ispasp",
    optimizer: Optimizer = ISPASP_TUNING,
    parts: str | tuple[str, ...] = "groups",
) -> Timeline:
    """Train; from front to back cut one hidden layer, shrink, train ``between`` epochs; fine-tune (Wolfe and Kyrillidis 2022).

    ``sparsity``: the fraction removed of every part, or of each channel group by name (configurations.py). Training after
    a cut is the authors': label smoothing 0.1, a constant rate between the cuts and a cosine at the end.
    """
    short = Train(between, optimizer=optimizer, learning_rate=LearningRate(), label_smoothing=0.1)
    after: Timeline = [Shrink(), *([short] if between else [])]
    cuts: Timeline = []
    if isinstance(sparsity, Mapping):
        for site, fraction in sparsity.items():
            cuts += [Prune(method, Budget(of="channels", across={site: fraction})), *after]
    else:
        cuts = [Each(parts, (cut_to(sparsity, method), *after))]
    last = Train(fine_tune, optimizer=optimizer, learning_rate=LearningRate("cosine"), label_smoothing=0.1)
    return [Train(epochs), *cuts, *fine_tuned(last)]


RECEDING_OPTIMIZER = Optimizer("sgd", lr=0.1, nesterov=True, weight_decay=1e-4)
"""The authors' optimizer, before and after the cut."""


@checked
def receding_rate(epochs: int, reference: bool = False) -> LearningRate:
    """The authors' schedule of a training: a tenth of the learning rate after half of the epochs, a hundredth after three
    quarters. ``reference``: a training of one epoch begins behind both milestones, as in the official code.

    >>> receding_rate(160).milestones, receding_rate(1).milestones
    ((80, 120), ())
    """
    milestones = (epochs // 2, 3 * epochs // 4)
    return LearningRate("multistep", milestones=tuple(n for n in milestones if n > 0 or reference))


@checked
def receding(
    method: str | Method,
    sparsity: float,
    epochs: int,
    fine_tune: int,
    strength: float | None = None,
    film: int = 0,
    scope: tuple[str, ...] | None = None,
) -> Timeline:
    """Train with a penalty on batch-norm scales, cut channels once, shrink, fine-tune without it (Suteu and Guo 2022).

    ``strength`` of the method's penalty; None for a method without one, whose dense network all such methods then share.
    Every layer keeps three channels; the learning rate of each training is that of receding_rate.
    ``film``: the spread of the importances is measured after every so many epochs. ``scope`` as in Prune.
    """
    seen = "ucs" if strength is None else method
    event = Every(film, (Importances("film", seen),)) if film else None
    penalty = None if strength is None else (as_method(method), strength)
    cut = Prune(method, replace(to(sparsity, method), keep_at_least=3), scope=scope)
    train = Train(epochs, penalty=penalty, during=event, learning_rate=receding_rate(epochs))
    timeline: Timeline = [train, Importances("dense", seen), cut, Shrink(), Measure("pruned")]
    if fine_tune:
        timeline += [Train(fine_tune, learning_rate=receding_rate(fine_tune)), Measure("fine-tuned")]
    return timeline


@checked
def scaled_from_scratch(sparsity: float, epochs: int, scope: tuple[str, ...] | None = None) -> Timeline:
    """Uniform channel scaling in the literature's sense: the same fraction of channels goes everywhere before any training.

    What is left gets fresh weights of its own and is trained: a width multiplier, except for channels that a sum ties.
    """
    cut = Prune("ucs", replace(to(sparsity, "ucs"), keep_at_least=3), scope=scope)
    return [cut, Rewind("new"), Shrink(), Train(epochs, learning_rate=receding_rate(epochs))]


@checked
def snip(sparsity: float, epochs: int) -> Timeline:
    """One cut by elasticity, then training (Lee et al. 2019)."""
    return before_training("snip", sparsity, epochs)


@checked
def snip_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """The same cut in steps, each on what the last one left, then training (Verdenius et al. 2020)."""
    return before_training("snip", sparsity, epochs, steps)


@checked
def snip_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 5) -> Timeline:
    """The steps of SNIP-it spread over the training (Verdenius et al. 2020)."""
    return during_training("snip", sparsity, epochs, steps, every, after)


@checked
def snap(sparsity: float, epochs: int) -> Timeline:
    """One cut of whole channels by elasticity; the smaller network is trained (Verdenius et al. 2020)."""
    return before_training("snap", sparsity, epochs, shrink=True)


@checked
def snap_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """The cut of whole channels in steps; the smaller network is trained (Verdenius et al. 2020)."""
    return before_training("snap", sparsity, epochs, steps, shrink=True)


@checked
def snap_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 5) -> Timeline:
    """Channels go during training; the network shrinks each time, and the optimizer starts anew (Verdenius et al. 2020)."""
    return during_training("snap", sparsity, epochs, steps, every, after, shrink=True)


@checked
def cnip_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """Weights and channels by one threshold, in steps, then training (Verdenius et al. 2020)."""
    return before_training("cnip", sparsity, epochs, steps, shrink=True)


@checked
def cnip_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 5) -> Timeline:
    """Weights and channels by one threshold, during training (Verdenius et al. 2020)."""
    return during_training("cnip", sparsity, epochs, steps, every, after, shrink=True)


@checked
def grasp(sparsity: float, epochs: int) -> Timeline:
    """One cut that keeps the gradient flowing, then training (Wang et al. 2020)."""
    return before_training("grasp", sparsity, epochs)


@checked
def synflow(sparsity: float, epochs: int) -> Timeline:
    """A hundred small cuts without data, then training (Tanaka et al. 2020)."""
    return before_training("synflow", sparsity, epochs)


@checked
def l0(
    strength: float, epochs: int, fine_tune: int, optimizer: Optimizer | None = None, average: float | None = None
) -> Timeline:
    """Train with gates, remove what the gates have shut, fine-tune (Louizos et al. 2018).

    A gate begins half open and is shut when its log alpha has fallen by 2.4. Adam moves it by its learning rate a step at
    most, so a training of few steps needs an ``optimizer`` with a larger rate (the authors' has 120,000 steps of 0.001);
    None: the experiment's. ``strength`` is their lambda over the number of training images, lambda being about 0.1. With
    ``average`` (theirs: 0.999) the gates are read off an exponential moving average of all weights. A gate on the inputs of a
    linear layer, as they have it, is the one on the outputs of the layer in front; the network's own inputs keep none.
    """
    train = Train(epochs, penalty=("l0", strength), optimizer=optimizer, average=average)
    return [train, Prune("l0", Budget(below=0.0, of="channels")), *fine_tuned(Train(fine_tune), recalibrate=True)]


@checked
def hoyer_square(strength: float, epochs: int, fine_tune: int, below: float = 1e-3) -> Timeline:
    """Train with the Hoyer-Square penalty, remove all weights that became small, fine-tune (Yang et al. 2020)."""
    cut = Prune("hoyer_square", Budget(below=below))
    train = Train(epochs, penalty=("hoyer_square", strength))
    return [train, cut, *fine_tuned(Train(fine_tune), recalibrate=True)]


@checked
def group_hoyer_square(
    strength: float, epochs: int, fine_tune: int, below: float = 1e-3, optimizer: Optimizer | None = None
) -> Timeline:
    """Train with the group penalty, cut out the channels that became small, fine-tune (Yang et al. 2020).

    All weights of a channel must come below ``below`` together. At a constant rate Adam keeps moving each by that rate, so
    the rate falls along a cosine; ``optimizer`` as for l0.
    """
    cut = Prune("group_hoyer_square", Budget(below=below, of="channels"))
    penalty = ("group_hoyer_square", strength)
    train = Train(epochs, penalty=penalty, optimizer=optimizer, learning_rate=LearningRate("cosine"))
    return [train, cut, Shrink(), *fine_tuned(Train(fine_tune), recalibrate=True)]


@checked
def tick_tock(
    sparsity: float, epochs: int, fine_tune: int, ticks: int = 10, tocks: int = 10, strength: float = 1e-3
) -> Timeline:
    """Train; tick: train the gates, cut, again and again; tock: train everything and pull the gates to zero; fine-tune
    (You et al. 2019). One cut comes before the first tick; the targets rise by 0.05 a cut."""
    rounds = tick_tock_rounds(sparsity)
    targets = [fraction_after("tick_tock", i, rounds, sparsity) for i in range(1, rounds + 1)]
    timeline: Timeline = [Train(epochs, only="weights"), cut_to(targets[0], "gates")]
    for start in range(1, rounds, ticks):
        for target in targets[start : start + ticks]:
            timeline += [Train(1, only="gates"), cut_to(target, "gates")]
        # Gates included: the penalty depends on nothing else, so with frozen gates it would do nothing.
        timeline.append(Train(tocks, penalty=("gates", strength)))
    return [*timeline, Shrink(), *fine_tuned(Train(fine_tune), recalibrate=True)]


@checked
def l1_one_shot(sparsity: float, epochs: int, strength: float) -> Timeline:
    """Train with an l1 penalty on all parameters, then one global cut by magnitude and no fine-tuning: LOMP, or GOP in its
    code (Zhang et al. 2024). ``strength`` multiplies the sum of absolute values."""
    return l1_in_rounds(sparsity, epochs, strength, rounds=1, retrain=0)


@checked
def l1_in_rounds(sparsity: float, epochs: int, strength: float, rounds: int, retrain: int) -> Timeline:
    """Train with an l1 penalty; then cut by magnitude and train on with it, in ``rounds`` rounds that end with a cut (Zhang et
    al. 2024 speak of gradual pruning; this schedule is ours). Every round removes the same share of what is left.

    Measures "dense", then "pruned" after every cut and "retrained" after every training but the first. ``rounds=1`` is
    l1_one_shot.
    """
    penalty = ("l1", strength)
    timeline: Timeline = [Train(epochs, penalty=penalty), Measure("dense")]
    for i in range(1, rounds + 1):
        timeline += [cut_to(fraction_after("geometric", i, rounds, sparsity), "magnitude"), Measure("pruned")]
        timeline += [Train(retrain, penalty=penalty), Measure("retrained")] if i < rounds else []
    return timeline


@checked
def smart_ratio(sparsity: float, epochs: int) -> Timeline:
    """Remove weights by chance before training, layer by layer in the shares of Su et al. 2020, and train what is left."""
    return [Prune("random", Budget(sparsity, across="smart_ratio")), Train(epochs)]


@checked(until=Real(above=0, at_most=1))
def rigl(
    sparsity: float, epochs: int, every: int = 1, drop: float = 0.3, until: float = 0.75, across: str = "erk"
) -> Timeline:
    """Remove weights by chance, train, and exchange the smallest for dead ones of large gradient all the while (Evci et al.
    2020).

    The exchange takes place after every ``every`` epochs, as long as less than the fraction ``until`` of the training is
    done, and begins with ``drop`` of a layer's weights. The authors count steps, 100 of them; an epoch is the smallest unit
    here. ``across``: how the start is spread over layers: "erk"; "uniform", which leaves the first layer whole; or "layer".
    """
    end = until * epochs / every
    times = math.ceil(end - 1e-9) - 1
    if times < 1:
        raise BadInput(f"{epochs} epochs leave no exchange every {every} epochs before {until:g} of them are done.")
    budget = Budget(sparsity, across=across)
    exchange = Prune(Rigl(drop=drop, end=end), budget)
    return [Prune("random", budget), Train(epochs, during=Every(every, (exchange,), times=times))]


@checked(period=Whole(at_least=1), epochs_mine=Whole(at_least=1))
def rare_gems(
    sparsity: float,
    epochs_mine: int,
    epochs_tune: int,
    period: int = 5,
    strength: float = 1e-4,
    signed: bool = True,
    optimizer: Optimizer | None = None,
) -> Timeline:
    """Train scores of frozen weights, cut the smallest again and again, then train what is left (Sreenivasan et al. 2022).

    A cut follows the first epoch of search and every ``period`` epochs, and then again until fewer than ``period`` are left;
    ``strength`` multiplies the sum of squared scores; where a search takes fewer steps than the authors' (fifty thousand),
    more than their 1e-4 is needed until scores that do not matter are below one half. ``signed``: see methods.rare_gems.
    ``optimizer`` of the training at the end (the authors take a tenth of the search's rate); None: the experiment's.
    """
    cuts = (epochs_mine - 1) // period
    if cuts < 1:
        raise BadInput(f"a search of {epochs_mine} epochs has no cut; it needs more than {period}.")
    gems = RareGems(signed=signed)
    during = Every(period, (Prune(gems, to(sparsity, gems), schedule="geometric"),), after=1, times=cuts)
    search = Train(epochs_mine, penalty=(gems, strength), only="gates", during=during)
    ticket = Prune(RareGems(signed=signed, finish=True), to(sparsity, gems))
    return [search, ticket, Measure("mined"), Train(epochs_tune, only="weights", optimizer=optimizer)]
