"""What channel methods say of a network outside of any run: importances, their spread, and how long a choice takes."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import check_batches, find_sites
from pruning_core.methods.base import Method, View, as_method
from pruning_core.models.modes import undisturbed
from pruning_core.models.ready import check_numbers

BINS = 40


@checked
def importances(model: nn.Module, method: str | Method, example_input, *, traced=None) -> dict[str, Tensor]:
    """The scores that a channel method gives: group -> (channels,), of the groups that it can prune.

    ``example_input`` is one input with its batch dimension; ``traced`` what groups_and_positions gives, when it is known.
    Raises BadInput for a method that looks at data, or at single weights.

    >>> import pruning_core as pc
    >>> network = pc.build_model("lenet300", "digits", seed=0)
    >>> {name: scores.shape for name, scores in importances(network, "l1_norm", torch.zeros(1, 1, 8, 8)).items()}
    {'fc1': torch.Size([300]), 'fc2': torch.Size([100])}
    """
    chosen = check_importance(method)
    check_numbers(model)
    sites = find_sites(model, channels=True, example_input=example_input, refuses=chosen.refuses, traced=traced)
    view = View(model, sites, Masks(), None, F.cross_entropy, torch.Generator(), example_input)
    return {name: score.detach().double().cpu() for name, score in chosen.score(view).items()}


def check_importance(method: str | Method) -> Method:
    """The method, if its scores follow from the weights of channels alone; BadInput otherwise."""
    chosen = as_method(method)
    if chosen.unit != "channel" or chosen.needs not in ("nothing", "shape"):
        raise BadInput(f"importances are scores of channels that need no data; {chosen.name!r} has no such scores.")
    return chosen


def spread(values: Tensor) -> dict[str, float | str]:
    """How non-negative importances are spread, relative to the largest.

    ``receded_share``: fraction below 0.1; ``mid_share``: fraction in [0.1, 0.5); ``histogram``: counts of BINS equal bins
    on [0, 1], separated by spaces; ``largest_importance``: what they are relative to.
    """
    values = values.detach().double().flatten()
    if len(values) == 0 or not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise BadInput("importances are finite numbers of at least 0, and there is at least one.")
    largest = float(values.max())
    relative = values / largest if largest > 0 else values
    counts = torch.histc(relative, BINS, 0, 1).long()
    return {
        "receded_share": float((relative < 0.1).double().mean()),
        "mid_share": float(((relative >= 0.1) & (relative < 0.5)).double().mean()),
        "largest_importance": largest,
        "histogram": " ".join(str(int(count)) for count in counts),
    }


@checked
def seconds_of_choice(
    model: nn.Module, method: str | Method, sparsity: float, batches, *, repeats: int = 3, seed: int = 0
) -> float:
    """Median seconds that a channel method takes to choose, without the search for groups, which all methods share.

    With several repeats a first run is not counted. The network is left as it was.

    >>> import pruning_core as pc
    >>> network = pc.build_model("lenet300", "digits", seed=0)
    >>> batches = [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))]
    >>> seconds_of_choice(network, "l1_norm", 0.5, batches, repeats=1) < 10
    True
    """
    chosen = as_method(method)
    given = check_batches(batches, "inputs", chosen.name)
    example = next(iter(given))[0][:1]
    sites = find_sites(model, channels=True, example_input=example, refuses=chosen.refuses)
    budget = Budget(sparsity, of="channels", across="layer")
    chosen.check_budget(budget)
    times = []
    for _ in range(repeats + (repeats > 1)):
        view = View(model, sites, Masks(), given, F.cross_entropy, torch.Generator().manual_seed(seed), example)
        with undisturbed(model):
            started = time.perf_counter()
            chosen.choose(view, budget)
            times.append(time.perf_counter() - started)
    return statistics.median(times[-repeats:])
