r"""SiPP, randomised (Baykal et al. 2019): sample weights by sensitivity and re-weight them, without bias.

A half h is one filter's weights of one sign. With sensitivities s_e, their sum S_h, and q_e = s_e / S_h:

    draws c ~ Multinomial(m_h, q),        w^_e = w_e c_e / (m_h q_e),        E w^ = w
    error of x distinct draws     f(x) = 1/2 [a/x + sqrt((a/x)^2 + 6 a/x)],   a = S_h (2 C / 3) ln(8 (P+1) k1 k2 / delta)

The budget is shared by minimising sum lambda_h f_h(x_h) over x, lambda_h = 1 / (filters of the layer). Paper: arXiv
1910.05422; the constants follow the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar
from typing import Literal
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pruning_core.activations import layer_inputs
from pruning_core.budgets import Budget
from pruning_core.budgets import share_out
from pruning_core.checks import Constraints
from pruning_core.checks import OneOf
from pruning_core.errors import BadInput
from pruning_core.errors import BudgetError
from pruning_core.masks import Masks
from pruning_core.methods.base import Choice
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import register
from pruning_core.methods.sampling import Draws
from pruning_core.methods.sampling import coefficient
from pruning_core.methods.sampling import error
from pruning_core.methods.sampling import water_fill
from pruning_core.scores import Scores
from pruning_core.sensitivity import CONSTANT
from pruning_core.sensitivity import PROBABILITY
from pruning_core.sensitivity import RunningSensitivity
from pruning_core.sensitivity import Sensitivity


class Half(NamedTuple):
    """The weights of one sign of one filter: where they are, their sensitivities, and their share in the allocation."""

    parameter: str
    entries: Tensor  # flat indices into the parameter
    scores: Tensor
    coefficient: float
    weight: float


def layer_sensitivities(
    view: View, layers: Iterable[str], reduce: str = "max", kernel: str = "reduce", channels: bool = True
) -> dict[str, Sensitivity]:
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


@register
@dataclass(frozen=True)
class SiPP(Method):
    """The weights with the largest share in some output stay, all layers ranked together (deterministic SiPP).

    ``reduce`` over output positions: "mean" as the authors' code has it, or the "max" of the theory; linear layers have one
    position.
    """

    name = "sipp"
    citation = "baykal2019sipp"
    needs = "inputs"

    constraints = Constraints(reduce=OneOf("max", "mean", kind="reduction"))

    reduce: str = "mean"

    def score(self, view: View) -> Scores:
        layers = [name.rpartition(".")[0] for name in view.sites.weights]
        found = layer_sensitivities(view, layers, self.reduce, channels=False)
        return Scores({name: found[name.rpartition(".")[0]].weight for name in view.sites.weights})


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

    def choose(self, view: View, budget: Budget) -> Choice:
        if budget.to is None or budget.across != "global" or budget.of != "weights":
            raise BudgetError(
                f"{self.name!r} spreads its budget itself: give one sparsity of weights, across='global'."
            )
        parts = self.parts(view)
        total = sum(view.sites.shapes[name].numel() for name in view.sites.weights)
        kept = total - math.floor(budget.to * total + 0.5 + 1e-9)
        sizes = np.array([len(part.entries) for part in parts])
        most = int(sizes.sum())
        counts = share_out(min(kept, most), self.shares(parts, kept), np.zeros_like(sizes), sizes)
        draws = [self.drawn(*pair, view.generator) for pair in zip(parts, counts.tolist(), strict=True)]
        if not self.reference:
            _make_exact(draws, min(kept, most), view.generator)
        masks = {name: torch.zeros(view.sites.shapes[name].numel(), dtype=torch.bool) for name in view.sites.weights}
        values = {name: view.parameter(name).clone().flatten() for name in view.sites.weights}
        for part, drawn in zip(parts, draws, strict=True):
            factor = drawn.factors()
            masks[part.parameter][part.entries] = factor > 0
            values[part.parameter][part.entries] *= factor.to(values[part.parameter])
        _keep_silent_weights(masks, view, kept - most)
        shapes = view.sites.shapes
        return Choice(
            Masks({name: mask.view(shapes[name]) for name, mask in masks.items()}),
            {name: value.view(shapes[name]) for name, value in values.items()},
        )

    def drawn(self, part: Half, count: int, generator: torch.Generator) -> Draws:
        """How ``count`` distinct weights of one part are taken."""
        return Draws(part.scores, count, generator)


@register
@dataclass(frozen=True)
class SiPPRand(Sampling):
    """Weights are drawn in proportion to their sensitivity, and what is drawn is re-weighted so that nothing is biased.

    ``constant`` is the paper's C, ``delta`` the failure probability. The number of draws is the paper's; then single draws
    are added or taken back until the budget holds exactly (``reference=True`` leaves it as drawn).
    """

    name = "sipp_random"
    citation = "baykal2019sipp"
    needs = "inputs"

    constraints = Constraints(constant=CONSTANT, delta=PROBABILITY)

    constant: float = 3.0
    delta: float = 1e-16
    reference: bool = False

    def parts(self, view: View) -> list[Half]:
        return self.halves(view)

    def shares(self, parts: list[Half], kept: int) -> np.ndarray:
        a = np.array([half.coefficient / 3 for half in parts])
        sizes = np.array([len(half.entries) for half in parts])
        return water_fill(a, np.array([half.weight for half in parts]), sizes, kept)

    def halves(self, view: View) -> list[Half]:
        """All halves with a positive sum of sensitivities, layer by layer."""
        halves = []
        found_in = layer_sensitivities(view, [name.rpartition(".")[0] for name in view.sites.weights])
        for name in view.sites.weights:
            found = found_in[name.rpartition(".")[0]]
            filters = len(found.weight)
            kernel = found.weight[0, 0].numel() if found.weight.dim() == 4 else 1
            rows = found.weight.flatten(1).cpu()
            signs = view.parameter(name).flatten(1).cpu().sign()
            for sign in (1, -1):
                for i in range(filters):
                    columns = ((signs[i] == sign) & (rows[i] > 0)).nonzero().flatten()
                    scores = rows[i, columns].double()
                    total = float(scores.sum())
                    if len(columns) and total > 1e-7:
                        entries = columns + i * rows.shape[1]
                        a = coefficient(total, found.positions, kernel, self.constant, self.delta)
                        halves.append(Half(name, entries, scores, a, 1 / filters))
        return halves


@register
@dataclass(frozen=True)
class SiPPHybrid(SiPPRand):
    """In every half the better of two: draw, or keep the largest, whichever promises the smaller error (SiPPHybrid).

    The error of keeping the x largest is C times the sensitivities that are left out.
    """

    name = "sipp_hybrid"

    def drawn(self, part: Half, count: int, generator: torch.Generator) -> Draws:
        if self.by_sampling(part, count):
            return super().drawn(part, count, generator)
        return Largest(part.scores, count)

    def by_sampling(self, half: Half, count: int) -> bool:
        """Whether drawing ``count`` entries promises a smaller error than keeping the largest."""
        ordered = half.scores.sort(descending=True).values
        # The official code keeps none where it may keep only one.
        lost = float(ordered[count if count > 1 else 0 :].sum())
        return self.constant * lost > float(error(np.array([max(count, 1)]), np.array([half.coefficient / 3]))[0])


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


class _FilterSampling(Sampling):
    """Every filter keeps the same fraction of its weights, drawn by |w| ** power, without regard to signs or data."""

    needs: ClassVar[Literal["nothing", "shape", "inputs", "labels"]] = "nothing"
    citation = "baykal2019sipp"
    power: ClassVar[int]

    def parts(self, view: View) -> list[Half]:
        found = []
        for name in view.sites.weights:
            rows = view.parameter(name).flatten(1).abs().double().cpu()
            for i, row in enumerate(rows):
                columns = row.nonzero().flatten()
                if len(columns):
                    found.append(Half(name, columns + i * len(row), row[columns] ** self.power, 0.0, 1.0))
        return found

    def shares(self, parts: list[Half], kept: int) -> np.ndarray:
        return np.array([float(len(part.entries)) for part in parts])


@register
@dataclass(frozen=True)
class UniformSampling(_FilterSampling):
    """Weights of a filter are drawn with equal probability and re-weighted."""

    name = "uniform"
    power = 0

    reference: bool = False


@register
@dataclass(frozen=True)
class L1Sampling(_FilterSampling):
    """Weights of a filter are drawn in proportion to their absolute value and re-weighted."""

    name = "l1_sampling"
    power = 1

    reference: bool = False


@register
@dataclass(frozen=True)
class L2Sampling(_FilterSampling):
    """Weights of a filter are drawn in proportion to their square and re-weighted."""

    name = "l2_sampling"
    power = 2

    reference: bool = False


def _keep_silent_weights(masks: dict[str, Tensor], view: View, count: int) -> None:
    """Keep ``count`` weights that take part in no output of these batches, unweighted: the budget leaves room for them."""
    for name, mask in masks.items():
        living = view.alive[name].flatten() if name in view.alive else torch.ones_like(mask)
        spare = (living & ~mask).nonzero().flatten()[: max(count, 0)]
        mask[spare] = True
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
