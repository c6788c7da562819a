"""What is checked before and after a cut, whatever method chose it: that the budget can be met, and that it was."""

from collections.abc import Mapping

import torch

from pruning_core.errors import BadInput, BudgetError
from pruning_core.masks import Budget, Masks, Member, Sites
from pruning_core.masks.reports import Report, count_removed
from pruning_core.methods.base import Method


def refuse_without_example(method: Method, budget: Budget) -> None:
    """BadInput where the method or the budget needs an example input."""
    if method.unit == "channel":
        raise BadInput(
            f"method {method.name!r} removes channels, so it needs example_input (or batches) to follow them through the "
            "network."
        )
    if method.needs == "shape":
        raise BadInput(f"method {method.name!r} needs example_input (or batches), to know the shape of an input.")
    if budget.of == "macs":
        raise BadInput("a budget of macs needs example_input (or batches), to know how often each weight is used.")


def check_sum_of_sites(report: Report, budget: Budget) -> None:
    """Where each site has a sparsity of its own, they must agree with the overall one, to what rounding does to a site."""
    if report.asked is None or not isinstance(budget.across, Mapping):
        return
    removed, total = report.removed[report.of]
    if abs(removed - report.asked * total) > len(budget.across) * budget.round_to:
        raise BudgetError(
            f"the sparsities of the sites remove {removed / total:.4f} of all {report.of}, not the {report.asked} asked for; "
            "give None as the overall sparsity to let them decide."
        )


def check_reached(method: Method, budget: Budget, masks: Masks, sites: Sites) -> None:
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


def check_rounded(method: Method, budget: Budget, masks: Masks, before: Masks, sites: Sites) -> None:
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


def held(masks: Masks, sites: Sites, budget: Budget) -> tuple[str, ...]:
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
