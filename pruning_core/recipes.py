"""Each paper's pipeline as a sentence of stages, by name: the whole field on one page.

Every recipe is a function of the sparsity (the fraction removed) and of the lengths that a profile sets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pruning_core.budgets import Budget
from pruning_core.errors import BadInput
from pruning_core.errors import known_name
from pruning_core.evaluation import integer_at_least
from pruning_core.methods import Method
from pruning_core.methods import as_method
from pruning_core.methods.base import counted
from pruning_core.methods.rare_gems import RareGems
from pruning_core.methods.rigl import Rigl
from pruning_core.optimizers import LearningRate
from pruning_core.optimizers import Optimizer
from pruning_core.optimizers import number_at_least_zero
from pruning_core.schedules import fraction_after
from pruning_core.schedules import tick_tock_rounds
from pruning_core.stages import Each
from pruning_core.stages import Every
from pruning_core.stages import Importances
from pruning_core.stages import Measure
from pruning_core.stages import Prune
from pruning_core.stages import Repeat
from pruning_core.stages import Rewind
from pruning_core.stages import Save
from pruning_core.stages import Shrink
from pruning_core.stages import Stage
from pruning_core.stages import Train

Timeline = list[Stage]


def dense(epochs: int) -> Timeline:
    """Training alone: the reference of every comparison."""
    return [Train(epochs)]


def prune_and_fine_tune(method: str | Method, sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, prune once, measure, fine-tune, measure (Han et al. 2015 with one cut)."""
    return [
        Train(epochs),
        Prune(method, to(sparsity, method)),
        Measure("pruned"),
        Train(fine_tune),
        Measure("fine-tuned"),
    ]


def iterative(method: str | Method, sparsity: float, epochs: int, fine_tune: int, rounds: int) -> Timeline:
    """Train, then prune a little and fine-tune, again and again; every round removes the same share of what is left."""
    cut = Prune(method, to(sparsity, method), schedule="geometric")
    return [Train(epochs), Repeat(rounds, (cut, Train(fine_tune))), Measure("fine-tuned")]


def before_training(method: str | Method, sparsity: float, epochs: int, steps: int | None = None) -> Timeline:
    """Prune the network as it was initialised, at once or in SNIP-it's ``steps + 2`` cuts, then train what is left."""
    return [_cut(method, sparsity, steps), Train(epochs)]


def during_training(
    method: str | Method, sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4
) -> Timeline:
    """Prune in SNIP-it's ``steps + 2`` cuts after epochs ``after + every``, ``after + 2 every``, ... of the training."""
    event = (Prune(method, to(sparsity, method), schedule="snip_it"),)
    return [Train(epochs, during=Every(every, event, after, _rounds(steps)))]


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
    return [_cut("snap", sparsity), Shrink(), Train(epochs)]


def snap_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """The cut of whole channels in steps; the smaller network is trained (Verdenius et al. 2020)."""
    return [_cut("snap", sparsity, steps), Shrink(), Train(epochs)]


def snap_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4) -> Timeline:
    """Channels go during training; the network shrinks each time, and the optimizer starts anew (Verdenius et al. 2020)."""
    event = (Prune("snap", to(sparsity, "snap"), schedule="snip_it"), Shrink(fresh_optimizer=True))
    return [Train(epochs, during=Every(every, event, after, _rounds(steps)))]


def cnip_it(sparsity: float, epochs: int, steps: int = 5) -> Timeline:
    """Weights and channels by one threshold, in steps, then training (Verdenius et al. 2020)."""
    return [_cut("cnip", sparsity, steps), Shrink(), Train(epochs)]


def cnip_it_during(sparsity: float, epochs: int, steps: int = 5, every: int = 4, after: int = 4) -> Timeline:
    """Weights and channels by one threshold, during training (Verdenius et al. 2020)."""
    event = (Prune("cnip", to(sparsity, "cnip"), schedule="snip_it"), Shrink(fresh_optimizer=True))
    return [Train(epochs, during=Every(every, event, after, _rounds(steps)))]


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
    _check_early(early, epochs)
    cut = Prune("magnitude", replace(to(sparsity, "magnitude"), across=across), schedule="snip_it")
    cuts = Every(every, (cut, Rewind("early", what="weights")), max(after - early, 0), _rounds(steps))
    return [Train(early), Save("early"), Train(epochs - early, during=cuts)]


def lottery_ticket(sparsity: float, epochs: int, rounds: int, early: int = 0, across: str = "global") -> Timeline:
    """Iterative magnitude pruning with rewinding to epoch ``early`` (Frankle and Carbin 2019; Frankle et al. 2020).

    ``across``: "global", one threshold for all layers, or "layer", the same fraction in each.
    """
    _check_early(early, epochs)
    cut = Prune("magnitude", replace(to(sparsity, "magnitude"), across=across), schedule="geometric")
    rest = epochs - early
    return [Train(early), Save("early"), Repeat(rounds, (Train(rest), cut, Rewind("early"))), Train(rest)]


def prune_and_shrink(method: str | Method, sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, remove channels, cut them out of the network, fine-tune the small one (Li et al. 2017)."""
    cut = Prune(method, to(sparsity, method))
    return [Train(epochs), cut, Shrink(), Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


ISPASP_TUNING = Optimizer("sgd", lr=0.01, nesterov=True, weight_decay=5e-4, decay_norm_and_bias=False)
"""The authors' optimizer after a cut, for ResNet-34; for MobileNetV2 the weight decay is 4e-5."""


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

    ``sparsity``: the fraction removed of every part, or of each channel group by name (papers.ispasp). Training after
    a cut is the authors': label smoothing 0.1, a constant rate between the cuts and a cosine at the end.
    """
    short = Train(between, optimizer=optimizer, learning_rate=LearningRate(), label_smoothing=0.1)
    tuning: Timeline = [short] if between else []
    cuts: Timeline
    if isinstance(sparsity, Mapping):
        cuts = []
        for site, fraction in sparsity.items():
            cuts += [Prune(method, Budget(of="channels", across={site: fraction})), Shrink(), *tuning]
    else:
        cuts = [Each(parts, (Prune(method, to(sparsity, method)), Shrink(), *tuning))]
    last = Train(fine_tune, optimizer=optimizer, learning_rate=LearningRate("cosine"), label_smoothing=0.1)
    return [Train(epochs), *cuts, Measure("pruned"), last, Measure("fine-tuned")]


def retrain_once(method: str | Method, sparsity: float, epochs: int, retrain: int) -> Timeline:
    """Train, prune the trained network, train again along the whole schedule: "retrain" of SiPP and PFP."""
    cut = Prune(method, Budget(sparsity, of="weights"))
    return [Train(epochs), cut, Measure("once pruned"), Train(retrain), Measure("once")]


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
    between, of which the last is retrained (papers.sipp_pfp). ``after`` a cut: "go on" with the weights, start from fresh
    "random" ones, or "rewind" to those ``retrain`` epochs before the end of the first training; what is pruned stays
    pruned. ``retrain`` may be a Train with settings of its own; ``across`` and ``options`` are those of the cuts
    (Budget, Prune). Baykal et al. 2019, Liebenwein et al. 2020.
    """
    known_name("way on after a cut", after, ("go on", "random", "rewind"))
    groups = [list(group) if isinstance(group, Sequence) else [group] for group in kept]
    falling = [fraction for group in groups for fraction in group]
    if not falling or any(a < b for a, b in itertools.pairwise(falling)) or not 0 < falling[-1] <= falling[0] <= 1:
        raise BadInput(f"kept fractions fall from 1 or less and stay above 0, not {falling}.")
    again = retrain if isinstance(retrain, Train) else Train(retrain)
    if after == "rewind" and not 0 < again.epochs <= epochs:
        raise BadInput(f"weights of {again.epochs} epochs before the end of {epochs} do not exist.")
    back: dict[str, Timeline] = {"go on": [], "random": [Rewind("new")], "rewind": [Rewind("early")]}
    first: Timeline = [Train(epochs)]
    if after == "rewind":
        first = [Train(epochs - again.epochs), Save("early"), Train(again.epochs)]
    timeline = first
    for group in groups:
        timeline += [Prune(method, Budget(1 - kept, of="weights", across=across), **options) for kept in group]
        # Labels of their own: the same sparsity after other epochs is not the same measurement.
        timeline += [Measure("step pruned"), *back[after], again, Measure("step")]
    return timeline


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
    Every layer keeps three channels; the learning rate falls to a tenth after half and three quarters of each training.
    ``film``: the spread of the importances is measured after every so many epochs. ``scope`` as in Prune.
    """
    seen = "ucs" if strength is None else method
    event = Every(film, (Importances("film", seen),)) if film else None
    penalty = None if strength is None else (as_method(method), strength)
    cut = Prune(method, replace(to(sparsity, method), keep_at_least=3), scope=scope)
    train = Train(epochs, penalty=penalty, during=event, learning_rate=_two_steps(epochs))
    timeline: Timeline = [train, Importances("dense", seen), cut, Shrink(), Measure("pruned")]
    if fine_tune:
        timeline += [Train(fine_tune, learning_rate=_two_steps(fine_tune)), Measure("fine-tuned")]
    return timeline


def scaled_from_scratch(sparsity: float, epochs: int, scope: tuple[str, ...] | None = None) -> Timeline:
    """Uniform channel scaling in the literature's sense: the same fraction of channels goes everywhere before any training.

    What is left gets fresh weights of its own and is trained: a width multiplier, except for channels that a sum ties.
    """
    cut = Prune("ucs", replace(to(sparsity, "ucs"), keep_at_least=3), scope=scope)
    return [cut, Rewind("new"), Shrink(), Train(epochs, learning_rate=_two_steps(epochs))]


def l0(strength: float, epochs: int, fine_tune: int) -> Timeline:
    """Train with gates, remove what the gates have shut, fine-tune (Louizos et al. 2018)."""
    cut = Prune("l0", Budget(below=0.0, of="channels"))
    return [Train(epochs, penalty=("l0", strength)), cut, Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


def hoyer_square(strength: float, epochs: int, fine_tune: int, below: float = 1e-3) -> Timeline:
    """Train with the Hoyer-Square penalty, remove all weights that became small, fine-tune (Yang et al. 2020)."""
    cut = Prune("hoyer_square", Budget(below=below))
    penalised = Train(epochs, penalty=("hoyer_square", strength))
    return [penalised, cut, Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


def group_hoyer_square(strength: float, epochs: int, fine_tune: int, below: float = 1e-3) -> Timeline:
    """Train with the group penalty, cut out the channels that became small, fine-tune (Yang et al. 2020)."""
    cut = Prune("group_hoyer_square", Budget(below=below, of="channels"))
    penalised = Train(epochs, penalty=("group_hoyer_square", strength))
    return [penalised, cut, Shrink(), Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


def efficient_convnets(sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, cut the filters of smallest norm in every layer, fine-tune (Li et al. 2017)."""
    return prune_and_shrink("efficient_convnets", sparsity, epochs, fine_tune)


def tick_tock(
    sparsity: float, epochs: int, fine_tune: int, ticks: int = 10, tocks: int = 10, strength: float = 1e-3
) -> Timeline:
    """Train; tick: train the gates, cut, again and again; tock: train everything and pull the gates to zero; fine-tune
    (You et al. 2019). One cut comes before the first tick; the targets rise by 0.05 a cut."""
    if isinstance(ticks, bool) or not isinstance(ticks, int) or ticks < 1:
        raise BadInput(f"tick-tock takes a whole number of ticks from 1 before each tock, not {ticks!r}.")
    rounds = tick_tock_rounds(sparsity)
    targets = [fraction_after("tick_tock", i, rounds, sparsity) for i in range(1, rounds + 1)]
    timeline: Timeline = [Train(epochs, only="weights"), Prune("gates", to(targets[0], "gates"))]
    for start in range(1, rounds, ticks):
        for target in targets[start : start + ticks]:
            timeline += [Train(1, only="gates"), Prune("gates", to(target, "gates"))]
        # Gates included: the penalty depends on nothing else, so with frozen gates it would do nothing.
        timeline.append(Train(tocks, penalty=("gates", strength)))
    return [*timeline, Shrink(), Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


def l1_one_shot(sparsity: float, epochs: int, strength: float) -> Timeline:
    """Train with an l1 penalty on all parameters, then one global cut by magnitude and no fine-tuning: LOMP, or GOP in its
    code (Zhang et al. 2024). ``strength`` multiplies the sum of absolute values."""
    penalty = ("l1", number_at_least_zero("strength", strength))
    return [Train(epochs, penalty=penalty), Measure("dense"), _cut("magnitude", sparsity), Measure("pruned")]


def dense_one_shot(sparsity: float, epochs: int, method: str | Method = "magnitude") -> Timeline:
    """Train, then one cut and no fine-tuning: what l1_one_shot is compared with, by magnitude or by chance ("random")."""
    return [Train(epochs), Measure("dense"), _cut(method, sparsity), Measure("pruned")]


def l1_in_rounds(sparsity: float, epochs: int, strength: float, rounds: int, retrain: int) -> Timeline:
    """Train with an l1 penalty; then cut by magnitude and train on with it, in ``rounds`` rounds that end with a cut (Zhang et
    al. 2024 speak of gradual pruning; this schedule is ours). Every round removes the same share of what is left.

    Measures "dense", then "pruned" after every cut and "retrained" after every training but the first. ``rounds=1`` is
    l1_one_shot.
    """
    penalty = ("l1", number_at_least_zero("strength", strength))
    integer_at_least("rounds", rounds, 1)
    timeline: Timeline = [Train(epochs, penalty=penalty), Measure("dense")]
    for i in range(1, rounds + 1):
        timeline += [_cut("magnitude", fraction_after("geometric", i, rounds, sparsity)), Measure("pruned")]
        timeline += [Train(retrain, penalty=penalty), Measure("retrained")] if i < rounds else []
    return timeline


def smart_ratio(sparsity: float, epochs: int) -> Timeline:
    """Remove weights by chance before training, layer by layer in the shares of Su et al. 2020, and train what is left."""
    return [Prune("random", Budget(sparsity, across="smart_ratio")), Train(epochs)]


def rigl(
    sparsity: float, epochs: int, every: int = 1, drop: float = 0.3, until: float = 0.75, across: str = "erk"
) -> Timeline:
    """Remove weights by chance, train, and exchange the smallest for dead ones of large gradient all the while (Evci et al.
    2020).

    The exchange takes place after every ``every`` epochs, as long as less than the fraction ``until`` of the training is
    done, and begins with ``drop`` of a layer's weights. The authors count steps, 100 of them; an epoch is the smallest unit
    here. ``across``: how the start is spread over layers: "erk"; "uniform", which leaves the first layer whole; or "layer".
    """
    integer_at_least("every", every, 1)
    if not 0 < number_at_least_zero("until", until) <= 1:
        raise BadInput(f"until is the fraction of the training after which the mask stands still, not {until}.")
    end = until * epochs / every
    times = math.ceil(end - 1e-9) - 1
    if times < 1:
        raise BadInput(f"{epochs} epochs leave no exchange every {every} epochs before {until:g} of them are done.")
    budget = Budget(sparsity, across=across)
    exchange = Prune(Rigl(drop=drop, end=end), budget)
    return [Prune("random", budget), Train(epochs, during=Every(every, (exchange,), times=times))]


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
    integer_at_least("period", period, 1)
    integer_at_least("epochs_mine", epochs_mine, 1)
    cuts = (epochs_mine - 1) // period
    if cuts < 1:
        raise BadInput(f"a search of {epochs_mine} epochs has no cut; it needs more than {period}.")
    gems = RareGems(signed=signed)
    cut = Prune(gems, to(sparsity, gems), schedule="geometric")
    search = Train(
        epochs_mine, penalty=(gems, strength), only="gates", during=Every(period, (cut,), after=1, times=cuts)
    )
    ticket = Prune(RareGems(signed=signed, finish=True), to(sparsity, gems))
    return [search, ticket, Measure("mined"), Train(epochs_tune, only="weights", optimizer=optimizer)]


def to(sparsity: float, method: str | Method) -> Budget:
    """The budget that removes this fraction of what ``method`` prunes."""
    return Budget(sparsity, of=counted(as_method(method)))  # type: ignore[arg-type]


def _rounds(steps: int) -> int:
    """Cuts that SNIP-it makes in ``steps`` halvings: the first, the halvings, and the target itself."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise BadInput(f"SNIP-it takes a whole number of steps from 1, not {steps!r}.")
    return steps + 2


def _cut(method: str | Method, sparsity: float, steps: int | None = None) -> Prune:
    """One cut, or those of SNIP-it's schedule."""
    if steps is None:
        return Prune(method, to(sparsity, method))
    return Prune(method, to(sparsity, method), rounds=_rounds(steps), schedule="snip_it")


def _two_steps(epochs: int) -> LearningRate:
    return LearningRate("multistep", milestones=(epochs // 2, 3 * epochs // 4))


def _check_early(early: int, epochs: int) -> None:
    if early and early >= epochs:
        raise BadInput(f"weights cannot be put back to epoch {early} of a training of {epochs} epochs.")


RECIPES: dict[str, Callable[..., Timeline]] = {
    function.__name__: function
    for function in (
        dense,
        prune_and_fine_tune,
        iterative,
        before_training,
        during_training,
        snip,
        snip_it,
        snip_it_during,
        snap,
        snap_it,
        snap_it_during,
        cnip_it,
        cnip_it_during,
        grasp,
        synflow,
        magnitude_rewind_during,
        lottery_ticket,
        prune_and_shrink,
        ispasp,
        retrain_once,
        cascade,
        receding,
        scaled_from_scratch,
        l0,
        hoyer_square,
        group_hoyer_square,
        efficient_convnets,
        tick_tock,
        l1_one_shot,
        dense_one_shot,
        l1_in_rounds,
        smart_ratio,
        rigl,
        rare_gems,
    )
}


def recipe(name: str, *arguments, **options) -> Timeline:
    """The timeline of that name; see RECIPES for the functions and what they take."""
    return RECIPES[known_name("recipe", name, RECIPES)](*arguments, **options)
