"""Weights drawn part by part, so many in all as a budget leaves: what the sampling methods of SiPP share."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pruning_core.errors import BadInput, BudgetError
from pruning_core.masks import Budget, Masks
from pruning_core.masks.ranking import share_out
from pruning_core.methods.base import Choice, Method, View
from pruning_core.methods.shared.draws import Draws
from pruning_core.methods.shared.sensitivities import LayerSensitivities, RunningSensitivity
from pruning_core.models import layer_inputs


class Half(NamedTuple):
    """The weights of one sign of one filter: where they are, their sensitivities, and their share in the allocation."""

    parameter: str
    entries: Tensor  # flat indices into the parameter
    scores: Tensor
    coefficient: float
    weight: float


def layer_sensitivities(
    view: View, layers: Iterable[str], reduce: str = "max", kernel: str = "reduce", channels: bool = True
) -> dict[str, LayerSensitivities]:
    """Sensitivities of all ``layers`` over the view's batches, in one pass that keeps one batch at a time.

    Raises BadInput where no weight has any: no output is switched on by these samples.
    """
    if view.batches is None:
        raise BadInput("sensitivities need batches of inputs.")
    running = {layer: RunningSensitivity(view.model.get_submodule(layer), reduce, kernel, channels) for layer in layers}
    for seen in layer_inputs(view.model, running, view.batches):
        for layer, maps in seen.items():
            running[layer].add(maps)
    found = {layer: part.result() for layer, part in running.items()}
    if not any(bool((part.weight > 0).any()) for part in found.values()):
        raise BadInput("all activations are zero for these samples, so every sensitivity is.")
    return found


def of_one_sign(weight: Tensor, sensitivity: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat indices and sensitivities (float64) of each filter's weights above zero, then of those below, where any counts."""
    rows, signs = sensitivity.flatten(1).cpu(), weight.flatten(1).cpu().sign()
    for sign in (1, -1):
        for i, row in enumerate(rows):
            columns = ((signs[i] == sign) & (row > 0)).nonzero().flatten()
            scores = row[columns].double()
            if len(columns) and float(scores.sum()) > 1e-7:
                yield columns + i * len(row), scores


class Sampling(Method):
    """Base of methods that draw the weights that stay, part by part, and re-weight what they drew.

    A subclass says what the parts are, and in which proportion they share the weights that stay. Single draws are added or
    taken back until the budget holds to the weight; with very unequal probabilities that biases the estimates a little,
    which ``reference=True`` (as many draws as meet the budget on average) does not.
    """

    reference: bool = False

    def meets_budget(self) -> bool:
        return not self.reference

    def parts(self, view: View) -> list[Half]:
        """What is drawn from: disjoint sets of weights with a score each."""
        raise NotImplementedError

    def shares(self, parts: list[Half], kept: int) -> np.ndarray:
        """How many weights each part should keep, of ``kept`` in all; need not be whole numbers."""
        raise NotImplementedError

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if budget.to is None or budget.across != "global" or budget.of != "weights":
            raise BudgetError(f"{self.name!r} spreads its budget itself: give a sparsity of weights, across='global'.")

    def choose(self, view: View, budget: Budget) -> Choice:
        assert budget.to is not None
        parts, shapes = self.parts(view), view.sites.shapes
        total = sum(shapes[name].numel() for name in view.sites.weights)
        kept = total - math.floor(budget.to * total + 0.5 + 1e-9)
        sizes = np.array([len(part.entries) for part in parts])
        most = int(sizes.sum())
        counts = share_out(min(kept, most), self.shares(parts, kept), np.zeros_like(sizes), sizes)
        draws = [self.drawn(*pair, view.generator) for pair in zip(parts, counts.tolist(), strict=True)]
        if not self.reference:
            _make_exact(draws, min(kept, most), view.generator)
        masks = {name: torch.zeros(shapes[name], dtype=torch.bool) for name in view.sites.weights}
        values = {n: torch.clone(w, memory_format=torch.contiguous_format) for n, w in view.weights().items()}
        for part, drawn in zip(parts, draws, strict=True):
            factor = drawn.factors()
            masks[part.parameter].view(-1)[part.entries] = factor > 0
            values[part.parameter].view(-1)[part.entries] *= factor.to(values[part.parameter])
        _keep_silent_weights(masks, view, kept - most)
        return Choice(Masks(masks), values)

    def drawn(self, part: Half, count: int, generator: torch.Generator) -> Draws:
        """How ``count`` distinct weights of one part are taken."""
        return Draws(part.scores, count, generator)


def _keep_silent_weights(masks: dict[str, Tensor], view: View, count: int) -> None:
    """Keep ``count`` weights that take part in no output of these batches, unweighted: the budget leaves room for them."""
    for name, mask in masks.items():
        living = view.alive[name] if name in view.alive else torch.ones_like(mask)
        spare = (living & ~mask).flatten().nonzero().flatten()[: max(count, 0)]
        mask.view(-1)[spare] = True
        count -= len(spare)


def _make_exact(draws: list[Draws], kept: int, generator: torch.Generator) -> None:
    """Add or take back single draws in random halves until ``kept`` entries are left in all."""
    total = sum(drawn.distinct for drawn in draws)
    while total != kept:
        pick = draws[int(torch.randint(len(draws), (1,), generator=generator))]
        before = pick.distinct
        if total < kept and before < len(pick.q):
            pick.one_more()
        elif total > kept and before > 0:
            pick.one_less()
        total += pick.distinct - before


class Largest(Draws):
    """The entries with the largest scores, as they are; one more or one less is the next in order."""

    def __init__(self, scores: Tensor, count: int):
        self.q = scores / scores.sum()
        self.order = torch.sort(scores, descending=True, stable=True).indices
        self.distinct = min(count, len(scores))

    def one_more(self) -> None:
        self.distinct += 1

    def one_less(self) -> None:
        self.distinct -= 1

    def factors(self) -> Tensor:
        """1 for what stays, 0 elsewhere."""
        kept = torch.zeros_like(self.q)
        kept[self.order[: self.distinct]] = 1.0
        return kept
