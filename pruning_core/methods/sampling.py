r"""Sampling without data, the baselines of SiPP (Baykal et al. 2019, baykal2019sipp): weights are drawn in proportion to

    1 (uniform),    |w| (l1_sampling),    w^2 (l2_sampling),    (|w| + w^2) / 2 (l1_l2_sampling)

within each filter, and re-weighted by ``c / (m q)`` as SiPP's are. Every filter keeps the same fraction of its weights.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pruning_core.methods.base import View, register
from pruning_core.methods.shared.halves import Half, Sampling


@dataclass(frozen=True)
class _FilterSampling(Sampling):
    """Every filter keeps the same fraction of its weights, without regard to signs or data.

    Its weights are drawn by the mean of |w| ** power over ``powers``.
    """

    citation = "baykal2019sipp"
    powers: ClassVar[tuple[int, ...]]

    reference: bool = False

    def parts(self, view: View) -> list[Half]:
        found = []
        for name, weight in view.weights().items():
            for i, row in enumerate(weight.flatten(1).abs().double().cpu()):
                columns = row.nonzero().flatten()
                if len(columns):
                    scores = torch.stack([row[columns] ** power for power in self.powers]).mean(0)
                    found.append(Half(name, columns + i * len(row), scores, 0.0, 1.0))
        return found

    def shares(self, parts: list[Half], kept: int) -> np.ndarray:
        return np.array([float(len(part.entries)) for part in parts])


@register
class UniformSampling(_FilterSampling):
    """Weights of a filter are drawn with equal probability and re-weighted."""

    name = "uniform"
    powers = (0,)


@register
class L1Sampling(_FilterSampling):
    """Weights of a filter are drawn in proportion to their absolute value and re-weighted."""

    name = "l1_sampling"
    powers = (1,)


@register
class L2Sampling(_FilterSampling):
    """Weights of a filter are drawn in proportion to their square and re-weighted."""

    name = "l2_sampling"
    powers = (2,)


@register
class L1AndL2Sampling(_FilterSampling):
    """Weights of a filter are drawn in proportion to the mean of their absolute value and their square, and re-weighted."""

    name = "l1_l2_sampling"
    powers = (1, 2)
