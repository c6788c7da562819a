r"""Drawing weights or channels in proportion to their sensitivities, and sharing a budget among what is drawn from.

With probabilities q, m draws show ``U(q, m) = sum_e 1 - (1 - q_e)^m`` different entries on average. An entry drawn c times is
multiplied by ``c / (m q)``, which leaves the mean of every output as it was. Formulas of Baykal et al. 2019
(baykal2019sipp); the constants follow the authors' code.
"""

import math
from bisect import bisect_left

import numpy as np
import torch
from torch import Tensor

from pruning_core.checks import checked
from pruning_core.errors import BadInput

LONGEST = 20_000  # more draws than this are not made one by one


class Draws:
    """A multinomial sample from the normalised ``scores`` that should show ``distinct`` different entries.

    ``whole``: everything is kept as it is, without re-weighting, because every entry is wanted, or was drawn. Where very
    unequal probabilities ask for very many draws, they are drawn as what they tend to: arrivals of independent Poisson
    processes, up to the first arrival of the last entry wanted.
    """

    def __init__(self, scores: Tensor, distinct: int, generator: torch.Generator):
        self.q = scores / scores.sum()
        self.generator = generator
        self.counts = np.zeros(len(scores))
        self.sequence: list[int] = []
        self.distinct = len(scores) if distinct >= len(scores) else 0
        if distinct < len(scores):
            self._sample(distinct)

    @property
    def whole(self) -> bool:
        return self.distinct == len(self.q)

    def _sample(self, distinct: int) -> None:
        m = draws_for_distinct(self.q.numpy(), distinct)
        if m > LONGEST:
            self._draw_until(distinct)
        else:
            self.distinct, self.counts = 0, np.zeros(len(self.q))
            self._draw(m)

    def _draw(self, m: int) -> None:
        if m:
            drawn = torch.multinomial(self.q, m, replacement=True, generator=self.generator).tolist()
            self.sequence += drawn
            np.add.at(self.counts, drawn, 1)
            self.distinct = int(np.count_nonzero(self.counts))

    def _draw_until(self, distinct: int) -> None:
        """Draw anew until ``distinct`` entries have appeared, however long that takes."""
        self.sequence = []
        first = torch.empty(len(self.q), dtype=torch.float64).exponential_(generator=self.generator) / self.q.double()
        order = first.sort(stable=True).indices[:distinct]
        counts = torch.zeros(len(self.q), dtype=torch.float64)
        if distinct:
            later = self.q.double()[order] * (first[order[-1]] - first[order])
            # Very large numbers hardly stray from their mean, and torch cannot draw them.
            counted = torch.poisson(later.clamp(max=1e8), generator=self.generator)
            counts[order] = 1 + torch.where(later > 1e8, later, counted)
        self.counts = counts.numpy()
        self.distinct = distinct

    def one_more(self) -> None:
        """Draw until one further entry has appeared."""
        before = self.distinct
        unseen = float(self.q[torch.from_numpy(self.counts == 0)].sum())
        if (not self.sequence and before) or unseen * LONGEST < 1:
            self._draw_until(before + 1)
            return
        while self.distinct == before:
            self._draw(1)

    def one_less(self) -> None:
        """Take draws back, last first, until one entry has disappeared."""
        before = self.distinct
        if not self.sequence:  # what is kept whole from the start is sampled after all
            (self._sample if self.whole else self._draw_until)(before - 1)
        while self.distinct >= before:
            entry = self.sequence.pop()
            self.counts[entry] -= 1
            self.distinct -= int(self.counts[entry] == 0)

    def factors(self) -> Tensor:
        """c / (m q): 0 for what was not drawn; 1 everywhere when the half is kept whole."""
        if self.whole:
            return torch.ones_like(self.q)
        return torch.from_numpy(np.asarray(self.counts, float)) / (max(float(self.counts.sum()), 1.0) * self.q)


def coefficient(total: float, positions: int, kernel: int, constant: float = 3.0, delta: float = 1e-16) -> float:
    """``S 2 C ln(8 (P + 1) k1 k2 / delta)`` for a sum S of sensitivities, P ``positions`` and ``kernel`` entries k1 k2."""
    return total * (2 * constant * math.log(8 * (positions + 1) * kernel / delta))


def expected_distinct(q: np.ndarray, m: float) -> int:
    """U(q, m) = ceil(sum_e 1 - (1 - q_e)^m): how many different entries m draws show on average."""
    return math.ceil(float(np.sum(1 - (1 - q) ** m)) - 1e-9)


def draws_for_distinct(q: np.ndarray, distinct: int) -> int:
    """The least number of draws from probabilities ``q`` (n,) that shows ``distinct`` different entries on average."""
    if distinct <= 1:
        return distinct
    distinct = min(distinct, int(np.count_nonzero(q)) - 1)
    return least_draws(q, distinct, 0, distinct, 2**62) if distinct else 1


def least_draws(q: np.ndarray, distinct: int, low: int, high: int, limit: float) -> int:
    """The same from ``low`` draws, which show too few, by doubling ``high`` as long as it lies below ``limit``."""
    while expected_distinct(q, high) < distinct and high < limit:
        low, high = high, 2 * high
    return low + 1 + bisect_left(range(low + 1, high), distinct, key=lambda m: expected_distinct(q, m))


@checked
def error(x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """f(x) = 1/2 [a/x + sqrt((a/x)^2 + 6 a/x)].

    >>> error(np.array([1.0, 10.0, 100.0]), np.ones(3)).round(3)
    array([1.823, 0.441, 0.128])
    """
    if a.shape != x.shape:
        raise BadInput(f"x and a must be of one shape, not {x.shape} and {a.shape}.")
    u = a / x
    return 0.5 * (u + np.sqrt(u * u + 6 * u))


@checked
def water_fill(a: np.ndarray, weight: np.ndarray, most: np.ndarray, total: float) -> np.ndarray:
    """The x with 0 < x <= most and sum x = total that minimises sum weight * error(x, a); all at most if they fit.

    At the optimum ``-weight * error'(x)`` is the same for every x below its bound; it rises with u = a / x, so u is found
    by bisection for a given multiplier, and the multiplier by bisection for the given total.

    >>> water_fill(np.array([1.0, 4.0]), np.ones(2), np.array([10.0, 10.0]), 8.0).round(2)
    array([2.85, 5.15])
    """
    if not a.shape == weight.shape == most.shape:
        raise BadInput(f"a, weight and most must be of one shape, not {a.shape}, {weight.shape} and {most.shape}.")
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
