r"""SiPP, randomised (Baykal et al. 2019): sample weights by sensitivity and re-weight them, without bias.

A half h is one filter's weights of one sign. With sensitivities s_e, their sum S_h, and q_e = s_e / S_h:

    draws c ~ Multinomial(m_h, q),        w^_e = w_e c_e / (m_h q_e),        E w^ = w
    error of x distinct draws     f(x) = 1/2 [a/x + sqrt((a/x)^2 + 6 a/x)],   a = S_h (2 C / 3) ln(8 (P+1) k1 k2 / delta)

The budget is shared by minimising sum lambda_h f_h(x_h) over x, lambda_h = 1 / (filters of the layer). Paper: arXiv
1910.05422; the constants follow the authors' code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..activations import layer_inputs
from ..budgets import Budget, share_out
from ..errors import BadInput, BudgetError
from ..masks import Masks
from ..sensitivity import sensitivity
from .base import Choice, Method, View, register


class Half(NamedTuple):
    """The weights of one sign of one filter: where they are, their sensitivities, and their share in the allocation."""

    parameter: str
    entries: Tensor  # flat indices into the parameter
    scores: Tensor
    coefficient: float
    weight: float


@register
@dataclass(frozen=True)
class SiPPRand(Method):
    """Weights are drawn in proportion to their sensitivity, and what is drawn is re-weighted so that nothing is biased.

    ``constant`` is the paper's C, ``delta`` the failure probability. The number of draws is the paper's; then single draws
    are added or taken back until the budget holds exactly (``reference=True`` leaves it as drawn).
    """

    name = "sipp_random"
    citation = "baykal2019sipp"
    needs = "inputs"

    constant: float = 3.0
    delta: float = 1e-16
    reference: bool = False

    def choose(self, view: View, budget: Budget) -> Choice:
        if budget.to is None or budget.across != "global" or budget.of != "weights":
            raise BudgetError(
                f"{self.name!r} spreads its budget itself: give one sparsity of weights, across='global'."
            )
        halves = self.halves(view)
        total = sum(view.sites.shapes[name].numel() for name in view.sites.weights)
        kept = total - math.floor(budget.to * total + 0.5 + 1e-9)
        most = sum(len(half.entries) for half in halves)
        a = np.array([half.coefficient / 3 for half in halves])
        sizes = np.array([len(half.entries) for half in halves])
        shares = water_fill(a, np.array([half.weight for half in halves]), sizes, kept)
        counts = share_out(min(kept, most), shares, np.zeros_like(sizes), sizes)
        draws = [Draws(half.scores, int(count), view.generator) for half, count in zip(halves, counts, strict=True)]
        if not self.reference:
            _make_exact(draws, min(kept, most), view.generator)
        masks = {name: torch.zeros(view.sites.shapes[name].numel(), dtype=torch.bool) for name in view.sites.weights}
        values = {name: view.parameter(name).clone().flatten() for name in view.sites.weights}
        for half, drawn in zip(halves, draws, strict=True):
            factor = drawn.factors()
            masks[half.parameter][half.entries] = factor > 0
            values[half.parameter][half.entries] *= factor.to(values[half.parameter])
        _keep_silent_weights(masks, view, kept - most)
        shapes = view.sites.shapes
        return Choice(
            Masks({name: mask.view(shapes[name]) for name, mask in masks.items()}),
            {name: value.view(shapes[name]) for name, value in values.items()},
        )

    def halves(self, view: View) -> list[Half]:
        """All halves with a positive sum of sensitivities, layer by layer."""
        if view.batches is None:
            raise BadInput(f"method {self.name!r} needs batches of inputs.")
        layers = {name: name.rpartition(".")[0] for name in view.sites.weights}
        inputs: dict[str, list[Tensor]] = {layer: [] for layer in layers.values()}
        for batch in layer_inputs(view.model, inputs, view.batches):
            for layer, tensor in batch.items():
                inputs[layer].append(tensor)
        halves = []
        for name, layer in layers.items():
            module = view.model.get_submodule(layer)
            found = sensitivity(module, inputs.pop(layer))
            filters = len(found.weight)
            kernel = found.weight[0, 0].numel() if found.weight.dim() == 4 else 1
            scale = 2 * self.constant * math.log(8 * (found.positions + 1) * kernel / self.delta)
            rows = found.weight.flatten(1).cpu()
            signs = view.parameter(name).flatten(1).cpu().sign()
            for sign in (1, -1):
                for i in range(filters):
                    columns = ((signs[i] == sign) & (rows[i] > 0)).nonzero().flatten()
                    scores = rows[i, columns].double()
                    if len(columns) and float(scores.sum()) > 1e-7:
                        entries = columns + i * rows.shape[1]
                        halves.append(Half(name, entries, scores, float(scores.sum()) * scale, 1 / filters))
        return halves


class Draws:
    """A multinomial sample from the normalised ``scores`` that should show ``distinct`` different entries.

    ``whole``: everything is kept as it is, without re-weighting, because every entry is wanted, or was drawn.
    """

    def __init__(self, scores: Tensor, distinct: int, generator: torch.Generator):
        self.q = scores / scores.sum()
        self.generator = generator
        self.counts = np.zeros(len(scores), dtype=np.int64)
        self.sequence: list[int] = []
        self.distinct = len(scores) if distinct >= len(scores) else 0
        if distinct < len(scores):
            self._draw(draws_for_distinct(self.q.numpy(), distinct))

    @property
    def whole(self) -> bool:
        return self.distinct == len(self.q)

    def _draw(self, m: int) -> None:
        if m:
            drawn = torch.multinomial(self.q, m, replacement=True, generator=self.generator).tolist()
            self.sequence += drawn
            np.add.at(self.counts, drawn, 1)
            self.distinct = int(np.count_nonzero(self.counts))

    def one_more(self) -> None:
        """Draw until one further entry has appeared."""
        before = self.distinct
        while self.distinct == before:
            self._draw(1)

    def one_less(self) -> None:
        """Take draws back, last first, until one entry has disappeared."""
        before = self.distinct
        if not self.sequence:  # kept whole from the start: sample it after all
            self.distinct = 0
            self._draw(draws_for_distinct(self.q.numpy(), before - 1))
        while self.distinct >= before:
            entry = self.sequence.pop()
            self.counts[entry] -= 1
            self.distinct -= self.counts[entry] == 0

    def factors(self) -> Tensor:
        """c / (m q): 0 for what was not drawn; 1 everywhere when the half is kept whole."""
        if self.whole:
            return torch.ones_like(self.q)
        return torch.from_numpy(self.counts).double() / (max(len(self.sequence), 1) * self.q)


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


def expected_distinct(q: np.ndarray, m: float) -> int:
    """U(q, m) = ceil(sum_e 1 - (1 - q_e)^m): how many different entries m draws show on average."""
    return math.ceil(float(np.sum(1 - (1 - q) ** m)) - 1e-9)


def draws_for_distinct(q: np.ndarray, distinct: int) -> int:
    """The least number of draws from probabilities ``q`` (n,) that shows ``distinct`` different entries on average."""
    if distinct <= 1:
        return distinct
    n = int(np.count_nonzero(q))
    if n == 1:
        return 1
    distinct = min(distinct, n - 1)
    low, high = 0, distinct
    while expected_distinct(q, high) < distinct:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if expected_distinct(q, middle) < distinct:
            low = middle
        else:
            high = middle
    return high


def error(x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """f(x) = 1/2 [a/x + sqrt((a/x)^2 + 6 a/x)]."""
    u = a / x
    return 0.5 * (u + np.sqrt(u * u + 6 * u))


def water_fill(a: np.ndarray, weight: np.ndarray, most: np.ndarray, total: float) -> np.ndarray:
    """The x with 0 < x <= most and sum x = total that minimises sum weight * error(x, a); all at most if they fit.

    At the optimum ``-weight * error'(x)`` is the same for every x below its bound; it rises with u = a / x, so u is found
    by bisection for a given multiplier, and the multiplier by bisection for the given total.
    """
    if most.sum() <= total:
        return most.astype(float)

    def slope(log_u: np.ndarray) -> np.ndarray:
        u = np.exp(log_u)
        return np.log(weight * u * u / a * 0.5 * (1 + (u + 3) / np.sqrt(u * u + 6 * u)))

    def at(log_multiplier: float) -> np.ndarray:
        low, high = np.full_like(a, -60.0), np.full_like(a, 60.0)
        for _ in range(100):
            middle = (low + high) / 2
            below = slope(middle) < log_multiplier
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.minimum(a / np.exp(low), most)

    low, high = -200.0, 200.0
    for _ in range(100):
        middle = (low + high) / 2
        if at(middle).sum() > total:
            low = middle
        else:
            high = middle
    return at(high)
