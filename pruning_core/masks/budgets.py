"""How much to remove, of what, spread how: a Budget, and the one place where scores become masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from pruning_core.checks import Constraints, Maybe, OneOf, Real, Whole, check, check_fields, checked, one_form
from pruning_core.errors import BadInput, BudgetError, known_name
from pruning_core.masks.groups import expand
from pruning_core.masks.masks import Masks
from pruning_core.masks.ranking import Ranking, share_out
from pruning_core.masks.reports import count_removed
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import Sites
from pruning_core.models.calls import raised
from pruning_core.records.hashes import HASHED_UNLESS_DEFAULT

OF = ("weights", "channels", "macs")
ACROSS = ("global", "layer", "uniform", "erk", "smart_ratio")
SPARSITY = Real(at_least=0, below=1)
"""What a fraction removed must be."""

Chooser = Callable[[int], list[np.ndarray]]  # number of units kept -> which ones, site by site
Chosen = Callable[[list[np.ndarray]], Masks]


@dataclass(frozen=True)
class Budget:
    """What a pruning step must reach.

    ``to``: fraction removed, in [0, 1), of everything in scope, what is already dead included.
    ``of``: what the fraction counts: "weights", "channels" or "macs" (multiply-accumulates).
    ``across``: "global" (one threshold), "layer" (the same fraction everywhere), "uniform" (the same, the first layer
    left whole; Evci et al. 2020), "erk" (Erdos-Renyi kernel densities, same paper), "smart_ratio" (keep ratios that fall
    with depth, the last linear layer at 0.3; Su et al. 2020), or {site: fraction removed}.
    ``below``: instead of ``to``, remove every score <= below. ``keep_at_least``: this many units of a site always stay.
    ``round_to``: what is kept of each group of channels is rounded up to a multiple of it, or to all that is alive where
    that is less. So never more is removed than asked: of channels up to ``round_to - 1`` a group less, of weights or MACs
    as little less as multiples allow.

    >>> Budget(0.8, of="channels", across="layer")
    Budget(to=0.8, of='channels', across='layer', below=None, keep_at_least=1, round_to=1)
    >>> Budget(1.0)
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: sparsity must lie in [0, 1), not 1.0.
    """

    constraints = Constraints(
        of=OneOf(*OF, kind="unit of a budget"),
        below=Maybe(Real()),
        keep_at_least=Whole(at_least=0),
        round_to=Whole(at_least=1),
    )

    to: float | None = None
    of: Literal["weights", "channels", "macs"] = "weights"
    across: str | Mapping[str, float] = "global"
    below: float | None = None
    keep_at_least: int = 1
    round_to: int = field(default=1, metadata=HASHED_UNLESS_DEFAULT)

    def __post_init__(self):
        object.__setattr__(self, "to", one_form(check("sparsity", self.to, Maybe(SPARSITY)), Maybe(SPARSITY)))
        check_fields(self)
        if isinstance(self.across, Mapping):
            if not self.across:
                raise BadInput("a sparsity for each site needs a site at least: across={} would prune nothing.")
            fractions = {
                site: one_form(check(f"the sparsity of {site!r}", fraction, SPARSITY), SPARSITY)
                for site, fraction in self.across.items()
            }
            object.__setattr__(self, "across", fractions)
            if self.to is not None:
                raise BadInput("a budget gives either one sparsity or a sparsity for each site, not both.")
        else:
            known_name("way to spread a budget", self.across, ACROSS)
            if (self.to is None) == (self.below is None):
                raise BadInput("a budget needs either a sparsity or a score below which to prune.")


@checked
def allocate(scores: Scores, budget: Budget, alive: Masks, sites: Sites) -> Masks:
    """Masks that keep the highest scores and meet the budget exactly, or within one channel where channels are counted
    in weights or MACs; with ``round_to`` above 1, each group then keeps the next best up to the next multiple.

    ``scores`` has one tensor a site: of a parameter's shape, or (channels,) for a group. Dead units stay dead whatever
    they score. Equal scores at the cut are spread over the sites in proportion, the lower index kept first.
    Raises BudgetError when the budget cannot be met.

    >>> from torch import nn
    >>> from pruning_core.masks import find_sites
    >>> network = nn.Linear(4, 1, bias=False)
    >>> sites = find_sites(network, channels=False)
    >>> masks = allocate(Scores({"weight": torch.tensor([[4.0, 1.0, 3.0, 2.0]])}), Budget(0.5), Masks(), sites)
    >>> masks["weight"]
    tensor([[ True, False,  True, False]])
    """
    return _planned(scores, budget, alive, sites)()


def check_possible(budget: Budget, alive: Masks, sites: Sites, channels: bool) -> None:
    """Raise what :func:`allocate` raises for this budget whatever the scores are, before there are any."""
    shapes = sites.score_shapes(channels)
    _planned(Scores({name: torch.zeros(shape) for name, shape in shapes.items()}), budget, alive, sites)


def check_kind(budget: Budget, channels: bool, method: str = "this method", spread: bool = False) -> None:
    """Raise for a budget that scores of that kind, of channels or of single weights, never meet; ``spread``: another than
    :func:`allocate` shares it out."""
    if budget.round_to > 1 and not channels:
        raise BadInput(f"round_to={budget.round_to} rounds numbers of channels, and {method} removes single weights.")
    if budget.below is not None:
        return
    natural = "channels" if channels else "weights"
    if not channels and budget.of == "channels":
        raise BudgetError(f"{method} prunes single weights; its budget counts weights or macs, not channels.")
    if spread:
        return
    if isinstance(budget.across, Mapping) and budget.of != natural:
        raise BudgetError(f"a sparsity for each site counts {natural} here, not {budget.of}.")
    if channels and budget.across in ("erk", "smart_ratio"):
        raise BudgetError(
            f"{budget.across!r} is defined for weights; spread channels as 'global', 'layer' or 'uniform'."
        )


def _planned(scores: Scores, budget: Budget, alive: Masks, sites: Sites) -> Callable[[], Masks]:
    """What makes the masks, once all is checked."""
    channels = any(name in sites.groups for name in scores)
    check_kind(budget, channels)
    expected = sites.score_shapes(channels)
    _check_sites(scores, expected)
    names = list(expected)
    flat = [raised(scores[name].detach()).flatten().cpu().numpy() for name in names]
    living: list[np.ndarray | None]
    if channels:
        living = [sites.groups[name].alive(alive).numpy() for name in names]
    else:
        living = [alive[name].flatten().cpu().numpy() if name in alive else None for name in names]
    ranking = Ranking(names, flat, living, [budget.keep_at_least] * len(names))

    def masks(keep: list[np.ndarray]) -> Masks:
        keep = keep if budget.round_to == 1 else ranking.rounded_up(keep, budget.round_to)
        chosen = {name: torch.from_numpy(bools).view(expected[name]) for name, bools in zip(names, keep, strict=True)}
        return alive & (expand(chosen, sites.groups, sites.shapes) if channels else Masks(chosen))

    if (threshold := budget.below) is not None:
        return lambda: masks(ranking.above(threshold))
    if isinstance(budget.across, Mapping):
        counts = _mapped_counts(budget.across, ranking)
        return lambda: masks(ranking.top_of_each(counts))
    assert budget.to is not None
    choose, fewest, most = _chooser(budget, ranking, sites)
    natural = "channels" if channels else "weights"
    if budget.of == natural:
        kept = ranking.total - _half_up(budget.to * ranking.total)
        if kept < fewest:
            choose(kept)  # says why not
        if kept > ranking.living_total:
            have = 1 - ranking.living_total / ranking.total
            raise BudgetError(
                f"the network already lacks {have:.4%} of its {natural}; sparsity {budget.to} would mean to revive some."
            )
        return lambda: masks(choose(kept))
    return _by_cost(budget, ranking, sites, masks, choose, fewest, most)


def _by_cost(
    budget: Budget, ranking: Ranking, sites: Sites, masks: Chosen, choose: Chooser, low: int, high: int
) -> Callable[[], Masks]:
    """Bisect the number of units kept, from ``low`` to ``high``, until the weights or MACs left come closest to the budget,
    from above if rounded."""
    assert budget.to is not None
    _, whole = count_removed(budget.of, {}, sites)
    target = (1 - budget.to) * whole

    def left(kept: int) -> int:
        return whole - count_removed(budget.of, masks(choose(kept)), sites)[0]

    most, least = left(high), left(low)
    if target > most + 0.5 * whole / max(ranking.total, 1):  # half of an average unit
        gone = f"{1 - most / whole:.4%} of"
        if high < ranking.living_total:
            raise BudgetError(f"{budget.across!r} removes at least {gone} the {budget.of}, more than {budget.to}.")
        raise BudgetError(
            f"the network already lacks {gone} its {budget.of}; sparsity {budget.to} would mean to revive some."
        )
    # Within half of the last unit that could go, the budget counts as met.
    if target < least - 0.5 * max(left(min(low + 1, high)) - least, 1):
        raise BudgetError(
            f"at most {1 - least / whole:.4%} of the {budget.of} can be removed "
            f"(at least {max(budget.keep_at_least, budget.round_to)} of each site stays{_STAYS.get(str(budget.across), '')}, "
            f"outputs stay); sparsity {budget.to} cannot be met."
        )

    def bisected() -> Masks:
        below, above = low, high
        while above - below > 1:
            middle = (below + above) // 2
            if left(middle) <= target:
                below = middle
            else:
                above = middle
        if budget.round_to > 1:
            return masks(choose(below if left(below) >= target else above))
        return masks(choose(min((below, above), key=lambda kept: abs(left(kept) - target))))

    return bisected


_STAYS = {"uniform": ", the first one as a whole", "smart_ratio": ", three tenths of the last linear one"}


def _chooser(budget: Budget, ranking: Ranking, sites: Sites) -> tuple[Chooser, int, int]:
    """The function from a number of kept units to the units, for the budget's way of spreading them, and the least and the
    largest number that it can keep."""
    if budget.across == "global":
        return ranking.top, ranking.minimum_total, ranking.living_total
    shares, lower, upper = _shares(str(budget.across), ranking, sites)

    def choose(kept: int) -> list[np.ndarray]:
        if kept < lower.sum() or kept > upper.sum():
            raise BudgetError(
                f"{kept} of {ranking.total} units cannot be kept when spread as {budget.across!r}: "
                f"between {int(lower.sum())} and {int(upper.sum())} are possible."
            )
        return ranking.top_of_each(share_out(kept, shares, lower, upper))

    return choose, int(lower.sum()), int(upper.sum())


def _shares(across: str, ranking: Ranking, sites: Sites) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative numbers of units to keep a site, and between which bounds each site's number must lie."""
    sizes, lower, upper = ranking.sizes.astype(float), ranking.minimum.copy(), ranking.alive_counts.copy()
    if across == "layer":
        return sizes, lower, upper
    if across == "uniform":
        lower[0] = upper[0]  # the first layer stays whole
        return sizes, lower, upper
    shapes = [sites.shapes[name] for name in ranking.names]
    if across == "erk":
        # density ~ (sum of the dimensions) / (their product), so the number kept is in proportion to the sum
        return np.array([float(sum(shape)) for shape in shapes]), lower, upper
    depth = np.arange(len(shapes), 0, -1)
    if len(shapes) > 1 and len(shapes[-1]) == 2:
        # The last linear layer is fixed at a keep ratio of 0.3 and does not take part in the scaling.
        lower[-1] = upper[-1] = min(int(upper[-1]), max(int(lower[-1]), _half_up(0.3 * float(sizes[-1]))))
    return sizes * (depth * depth + depth), lower, upper


def _mapped_counts(across: Mapping[str, float], ranking: Ranking) -> np.ndarray:
    for site in across:
        known_name("site of the budget", site, ranking.names)
    counts = ranking.alive_counts.copy()
    for i, name in enumerate(ranking.names):
        if name in across:
            counts[i] = ranking.sizes[i] - _half_up(across[name] * int(ranking.sizes[i]))
            if counts[i] > ranking.alive_counts[i]:
                raise BudgetError(f"site {name!r} already lacks more than the fraction {across[name]} asked for.")
            if counts[i] < ranking.minimum[i]:
                raise BudgetError(f"site {name!r} would be emptied by sparsity {across[name]}.")
    return counts


def _check_sites(scores: Scores, expected: Mapping[str, torch.Size]) -> None:
    for name, shape in expected.items():
        if name not in scores:
            raise BadInput(f"the method gave no scores for {name!r}.")
        if scores[name].shape != shape:
            raise BadInput(f"the scores of {name!r} have shape {tuple(scores[name].shape)}, not {tuple(shape)}.")
    for name in scores:
        if name not in expected:
            raise BadInput(f"the method scored {name!r}, which is not among the sites.")
    if not expected:
        raise BudgetError("nothing in scope can be pruned.")


def _half_up(value: float) -> int:
    """Nearest whole number, halves up; the small term makes 0.07 * 100 and the like what a reader expects."""
    return math.floor(value + 0.5 + 1e-9)
