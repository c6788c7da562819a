"""The public way to prune a network: ``prune(model, method, sparsity)``, and to save and load the outcome."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike

import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.checks import SEED, Maybe, Whole, check, check_finite
from pruning_core.errors import BadInput, BudgetError, Unprunable, known_name
from pruning_core.masks.budgets import SPARSITY, Budget
from pruning_core.masks.groups import Member
from pruning_core.masks.masks import Masks
from pruning_core.masks.reports import NOTHING_CUT, Report, count_removed, make_report
from pruning_core.masks.schedules import SCHEDULES, fraction_after
from pruning_core.masks.sites import Scope, Sites, check_batches, find_sites
from pruning_core.methods.base import Choice, Method, View, as_method, check_rounding, counted
from pruning_core.methods.shrinking import compare, shrunk
from pruning_core.models import folding
from pruning_core.models.calls import first_sample, like_model
from pruning_core.models.layers.protocol import to_plain
from pruning_core.models.modes import undisturbed
from pruning_core.models.ready import check_plain
from pruning_core.models.storage import save_network


@dataclass(frozen=True)
class PruneResult:
    """A pruned copy of a network, with zeros in place of what was removed.

    ``model`` has the shapes of the network given; ``masks`` say what is alive; ``report`` prints well. For channel
    methods ``shrink()`` gives the smaller network, and ``save`` stores that one.
    """

    model: nn.Module
    masks: Masks
    report: Report
    sites: Sites
    example_input: object = None

    def shrink(self, *, fold_batch_norm: bool = False, channels_last: bool = False) -> nn.Module:
        """A smaller, plain network with the same outputs: dead channels are cut out, special layers made ordinary.

        For inference, ``fold_batch_norm=True`` folds batch norms into the layers in front of them where the outputs stay
        equal (:func:`~pruning_core.models.fold_batch_norm`); the result is in evaluation mode, so fine-tune before.
        ``channels_last=True`` stores filters in that memory format, in which convolutions are often faster.
        Raises Unprunable if the method prunes single weights, or if the outputs of the two networks differ.

        >>> conv, norm, head = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 1, 1)
        >>> result = prune(nn.Sequential(conv, norm, head), "l1_norm", 0.5, example_input=torch.zeros(1, 1, 4, 4))
        >>> result.shrink(fold_batch_norm=True, channels_last=True)
        Sequential(
          (0): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): Conv2d(8, 1, kernel_size=(1, 1), stride=(1, 1))
        )
        """
        if not self.sites.groups:
            raise Unprunable(
                f"{self.report.method!r} removed single weights, which leave no smaller network; only whole channels do."
            )
        small, _ = shrunk(self.model, self.masks, self.sites, self.example_input)
        small = to_plain(small)
        if fold_batch_norm:
            folded = folding.fold_batch_norm(small, self.example_input)
            compare(small, folded, self.example_input)
            small = folded
        return small.to(memory_format=torch.channels_last) if channels_last else small

    def save(self, path: str | PathLike) -> None:
        """Write one safetensors file (JSON and checksum inside): the shrunk network for channel methods, else the masked
        one with its masks. :func:`load_pruned` reads it."""
        if self.sites.groups:
            save_network(self.shrink(), path, plain=True, like=self.model)
        else:
            save_network(self.model, path, masks=self.masks)

    def __repr__(self) -> str:
        return self.report.summary

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def prune(
    model: nn.Module,
    method: str | Method,
    sparsity: float | Budget | None,
    *,
    of: str | None = None,
    across: str | Mapping[str, float] = "global",
    round_to: int = 1,
    batches=None,
    example_input=None,
    scope: Scope = None,
    rounds: int = 1,
    schedule: str = "geometric",
    seed: int = 0,
) -> PruneResult:
    """Prune a copy of ``model``; the network given is left as it was.

    ``method`` is a name of METHODS or an instance like ``Magnitude(normalise="l2")``. ``sparsity`` in [0, 1) is the
    fraction removed of what ``of`` counts: "weights", "channels" or "macs" (default: what the method prunes).
    ``across`` says how it is spread (see Budget); with a sparsity for each site there, the overall one may be None, and
    otherwise must agree with them. ``round_to`` (8 or 16, as wide as the processor's registers): what is kept of each group
    of channels is rounded up to a multiple, so a little less than ``sparsity`` goes. A Budget in place of the sparsity says
    all this, or a threshold (``below``). ``batches`` are what a :class:`~pruning_core.data.Feed` takes; ``example_input`` is
    one input with its batch dimension, or a tuple of inputs (default: of the batches, or of the shape that build_model noted).
    ``scope`` narrows the layers; ``rounds`` > 1 scores and cuts again and again, along ``schedule`` (of SCHEDULES).

    >>> import pruning_core, torch
    >>> result = pruning_core.prune(torch.nn.Linear(4, 2), "magnitude", 0.5)
    >>> result.masks.sparsity
    0.5
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2))
    >>> pruning_core.prune(network, "l1_norm", 0.7, round_to=8, example_input=torch.zeros(1, 4)).shrink()[0].out_features
    8
    """
    check_plain(model)
    check_finite(model)
    method = as_method(method)
    if isinstance(sparsity, Budget):
        if of is not None or across != "global" or round_to != 1:
            raise BadInput(
                "a Budget says itself what it counts, how it is spread and rounded; give neither of= nor across= nor "
                "round_to= beside it."
            )
        budget, asked = sparsity, sparsity.to
    else:
        for_each = isinstance(across, Mapping)  # the sites have sparsities of their own
        asked = check("sparsity", sparsity, Maybe(SPARSITY) if for_each else SPARSITY)
        to = None if for_each else asked
        budget = Budget(to, of=of or counted(method), across=across, round_to=round_to)  # type: ignore[arg-type]
    check_rounding(method, budget)
    rounds = check("rounds", rounds, Whole(at_least=1))
    known_name("schedule", schedule, SCHEDULES)
    seed = check("seed", seed, SEED)
    batches = check_batches(batches, method.needs, method.name, model)
    example_input = example_for(model, example_input, batches)
    if example_input is None:
        _refuse_without_example(method, budget)
    pruned = copy.deepcopy(model)
    channels = method.unit == "channel"
    sites = find_sites(pruned, channels=channels, example_input=example_input, scope=scope, refuses=method.refuses)
    overall, masks = budget.to, Masks()
    remarks: tuple[str, ...] = ()
    for i in range(1, rounds + 1):
        if overall is not None:
            budget = replace(budget, to=fraction_after(schedule, i, rounds, overall))
        original = model if i == 1 else None
        masks, _, remarks = prune_step(
            pruned, method, budget, sites, masks, batches, seed + i - 1, original, example_input, round=i, of=rounds
        )
    masks = Masks.dense(pruned, sites.weights) & masks
    if budget.below is not None and not masks.removed:
        remarks = (*remarks, NOTHING_CUT)
    if budget.round_to > 1:
        remarks = (*remarks, f"numbers of channels kept are rounded up to multiples of {budget.round_to}")
    report = make_report(method.name, asked, budget.of, masks, sites, remarks + _held(masks, sites, budget))
    _check_sum_of_sites(report, budget)
    return PruneResult(pruned, masks, report, sites, example_input)


def _refuse_without_example(method: Method, budget: Budget) -> None:
    if method.unit == "channel":
        raise BadInput(
            f"method {method.name!r} removes channels, so it needs example_input (or batches) to follow them through the "
            "network."
        )
    if method.needs == "shape":
        raise BadInput(f"method {method.name!r} needs example_input (or batches), to know the shape of an input.")
    if budget.of == "macs":
        raise BadInput("a budget of macs needs example_input (or batches), to know how often each weight is used.")


def _check_sum_of_sites(report: Report, budget: Budget) -> None:
    """Where each site has a sparsity of its own, they must agree with the overall one, to what rounding does to a site."""
    if report.asked is None or not isinstance(budget.across, Mapping):
        return
    removed, total = report.removed[report.of]
    if abs(removed - report.asked * total) > len(budget.across) * budget.round_to:
        raise BudgetError(
            f"the sparsities of the sites remove {removed / total:.4f} of all {report.of}, not the {report.asked} asked for; "
            "give None as the overall sparsity to let them decide."
        )


def prune_step(
    model: nn.Module,
    method: Method,
    budget: Budget,
    sites: Sites,
    masks: Masks,
    batches=None,
    seed: int = 0,
    original: nn.Module | None = None,
    example_input=None,
    loss=F.cross_entropy,
    round: int = 1,
    of: int = 1,
) -> Choice:
    """One choice of ``method``, applied to ``model`` in place: new values first, then the masks.

    ``original`` may be a network with the values that ``model`` has now, which saves a copy. The method hears that this
    is cut ``round`` of ``of``; what it does to the network while it looks is undone. BudgetError: it missed the budget.
    """
    generator = torch.Generator().manual_seed(seed)
    if example_input is None and batches is not None:
        example_input = first_sample(next(iter(batches))[0])
    with undisturbed(model, original):
        view = View(model, sites, masks, batches, loss, generator, example_input, round, of)
        choice = method.choose(view, budget)
    found = choice.masks if method.revives else masks & choice.masks
    _check_reached(method, budget, found, sites)
    _check_rounded(method, budget, found, masks, sites)
    with torch.no_grad():
        for name, value in choice.values.items():
            if not torch.isfinite(value).all():
                raise BadInput(f"method {method.name!r} gave NaN or infinite values for {name!r}.")
            model.get_parameter(name).copy_(value)
    found.apply_(model)
    return choice._replace(masks=found)


def _check_reached(method: Method, budget: Budget, masks: Masks, sites: Sites) -> None:
    """Whatever chose the masks, the budget holds exactly, or within one channel where groups force it."""
    if budget.to is None or not method.meets_budget():
        return
    removed, total = count_removed(budget.of, masks, sites)
    tolerance = 0.5 + 1e-6
    if method.unit == "channel" and budget.of != "channels":
        tolerance = max(_cost_of_largest_channel(sites, budget.of), 1)
    elif budget.of == "macs" and sites.positions:
        tolerance = max(sites.positions.values())
    rounding = (budget.round_to - 1) * len(sites.groups) * max(tolerance, 1)
    if not -tolerance - rounding <= removed - budget.to * total <= tolerance:
        raise BudgetError(
            f"method {method.name!r} removed {removed:,} of {total:,} {budget.of}, but sparsity {budget.to} was asked for."
        )


def _check_rounded(method: Method, budget: Budget, masks: Masks, before: Masks, sites: Sites) -> None:
    """Every group keeps a multiple of ``round_to``, or all that it had."""
    for name, group in sites.groups.items() if budget.round_to > 1 else ():
        kept = int(group.alive(masks).sum())
        if kept % budget.round_to and kept < int(group.alive(before).sum()):
            raise BudgetError(
                f"method {method.name!r} keeps {kept} channels of {name!r}, which is no multiple of "
                f"round_to={budget.round_to}: it does not round."
            )


def _cost_of_largest_channel(sites: Sites, of: str) -> int:
    costs = sites.positions if of == "macs" and sites.positions else {}

    def cost(member: Member, size: int) -> int:
        shape = sites.shapes[member.parameter]
        return int(len(member.indices) / size * shape.numel() / shape[member.dim] * costs.get(member.parameter, 1))

    return max(
        sum(cost(member, group.size) for member in group.members if member.parameter in sites.weights)
        for group in sites.groups.values()
    )


def _held(masks: Masks, sites: Sites, budget: Budget) -> tuple[str, ...]:
    """Remarks on sites that only the stated minimum keeps from being emptied."""
    if sites.groups:
        left = {name: (int(group.alive(masks).sum()), group.size) for name, group in sites.groups.items()}
    else:
        left = {name: (int(torch.count_nonzero(masks[name])), masks[name].numel()) for name in sites.weights}
    held = [name for name, (count, size) in left.items() if count <= budget.keep_at_least < size]
    if not held or not budget.keep_at_least:
        return ()
    more = f" and {len(held) - 5} more" if len(held) > 5 else ""
    return (f"kept at the minimum of {budget.keep_at_least}: {', '.join(held[:5])}{more}",)


def example_for(model: nn.Module, example_input=None, batches=None):
    """One input of the network: as given, the first of the batches, or random numbers of the shape in ``model.recipe``."""
    if example_input is not None:
        return like_model(model, example_input, None)[0]
    if batches is not None:
        return first_sample(like_model(model, next(iter(batches))[0], None)[0])
    if (recipe := getattr(model, "recipe", None)) is None:
        return None
    noise = torch.randn((1, *recipe["shape"]), generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()))
