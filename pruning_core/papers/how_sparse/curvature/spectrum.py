"""A spectrum as weighted points, and its density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.checks import Real, Whole, check
from pruning_core.errors import BadInput

BLOCK = 2**22  # numbers in a block of kernels


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Weighted points that stand for the eigenvalues of a matrix (dimension, dimension).

    ``eigenvalues`` and ``weights``, float64 (probes, M) each; the weights of a probe sum to 1 (entries of weight 0 fill up
    probes that ended early). ``exact``: these are all the eigenvalues, in one row, each with weight 1 / dimension.
    """

    eigenvalues: Tensor
    weights: Tensor
    dimension: int
    exact: bool = False

    def __post_init__(self) -> None:
        if self.eigenvalues.dim() != 2 or self.eigenvalues.shape != self.weights.shape or not self.weights.numel():
            raise BadInput(
                "eigenvalues and weights of a spectrum must both have the shape (probes, M), "
                f"not {tuple(self.eigenvalues.shape)} and {tuple(self.weights.shape)}."
            )
        if not bool(torch.isfinite(self.eigenvalues).all()):
            raise BadInput("the eigenvalues of a spectrum must be finite.")
        sums = self.weights.sum(1)
        if not (bool((self.weights >= 0).all()) and bool(((sums - 1).abs() < 1e-6).all())):
            raise BadInput("the weights of a spectrum must not be negative and must sum to 1 for every probe.")

    @classmethod
    def of(cls, rules: Sequence[tuple[Tensor, Tensor]], dimension: int) -> Spectrum:
        """From one pair (Ritz values, weights) a probe; shorter ones are filled up with weight 0."""
        ritz, weights = (torch.nn.utils.rnn.pad_sequence([rule[i] for rule in rules], batch_first=True) for i in (0, 1))
        return cls(ritz, weights, dimension)

    def mean(self) -> float:
        """The mean eigenvalue, trace / dimension."""
        return float((self.eigenvalues * self.weights).sum(1).mean())

    @property
    def top(self) -> float:
        """The largest eigenvalue that any probe has seen."""
        return float(self.flattened()[0].max())

    def flattened(self) -> tuple[Tensor, Tensor]:
        """All points that carry weight, ascending, and their weights averaged over probes, which sum to 1."""
        carries = self.weights > 0
        values, order = self.eigenvalues[carries].sort(stable=True)
        return values, self.weights[carries][order] / len(self.weights)


def reference_density(
    ritz: Tensor, weights: Tensor, bins: int = 100000, variance: float = 1e-10, overhead: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Density and grid, float64 (bins,) each, as the official code of Zhang et al. (2024) makes them; sum * step is 1.

    ``ritz`` and ``weights`` (runs, k). The grid reaches ``overhead`` beyond the smallest and the largest Ritz value, both
    averaged over runs; the kernels have the variance ``variance * max(1, length of the grid)``. Once the grid is longer
    than about 10, its steps are wider than the kernels, and Ritz values between two grid points lose their weight.
    """
    if ritz.dim() != 2 or ritz.shape != weights.shape or not ritz.numel():
        raise BadInput(
            f"ritz and weights must have one shape (runs, k), not {tuple(ritz.shape)}, {tuple(weights.shape)}."
        )
    check("the number of bins", bins, Whole(at_least=2))
    ritz, weights = ritz.double(), weights.double()
    low, high = float(ritz.amin(1).mean()) - overhead, float(ritz.amax(1).mean()) + overhead
    variance = check("the variance of a density", variance * max(1.0, high - low), Real(above=0))
    centres, shares = ritz.flatten(), weights.flatten() / len(ritz)
    grid = torch.linspace(low, high, bins, dtype=torch.float64)
    parts = grid.split(max(1, BLOCK // len(centres)))
    kernels = [torch.exp((x[:, None] - centres) ** 2 / (-2 * variance)) @ shares for x in parts]
    density = 1 / math.sqrt(2 * math.pi * variance) * torch.cat(kernels)
    total = float(density.sum()) * float(grid[1] - grid[0])
    if not total > 0:
        raise BadInput("no grid point is near a Ritz value; take more bins or a larger variance.")
    return density / total, grid
