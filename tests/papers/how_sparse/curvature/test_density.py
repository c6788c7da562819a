"""Spectra put together from quadratures, and their densities, against loops and the official code written out."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from pruning_core.errors import BadInput, PruningError
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, quadrature
from pruning_core.papers.how_sparse.curvature.measures import Spectrum, reference_density
from tests.papers.how_sparse.curvature.matrices import DOUBLE, by, start_of, symmetric


def rules() -> list[tuple[torch.Tensor, torch.Tensor]]:
    matrix = symmetric([-1.0, 0, 0, 0, 0.5, 2.0])
    starts = [start_of(6, seed=3), torch.linalg.eigh(matrix).eigenvectors[:, -1] + 1e-30]
    return [quadrature(*lanczos(by(matrix), s, 4)) for s in starts]


def test_a_spectrum_against_loops():
    first, second = rules()
    assert (len(first[0]), len(second[0])) == (4, 1)  # the second start is an eigenvector
    spectrum = Spectrum.of([first, second], 6)
    assert spectrum.eigenvalues.shape == spectrum.weights.shape == (2, 4)
    assert not spectrum.exact
    pairs = [[*zip(*(part.tolist() for part in rule), strict=True)] for rule in (first, second)]
    assert spectrum.mean() == pytest.approx(sum(sum(v * w for v, w in rule) for rule in pairs) / 2)
    assert spectrum.top == pytest.approx(2)
    values, weights = spectrum.flattened()
    assert len(values) == 5
    assert values.tolist() == sorted(v for rule in pairs for v, _ in rule)
    # Pairs, not a table by value: two starts may find the very same value.
    found = sorted(zip(values.tolist(), weights.tolist(), strict=True))
    assert [w for _, w in found] == pytest.approx([w / 2 for _, w in sorted(pair for rule in pairs for pair in rule)])
    assert float(weights.sum()) == pytest.approx(1)


def test_what_fills_up_counts_for_nothing():
    negative = torch.tensor([-3.0, -2.0], dtype=DOUBLE), torch.tensor([0.5, 0.5], dtype=DOUBLE)
    short = torch.tensor([-1.0], dtype=DOUBLE), torch.tensor([1.0], dtype=DOUBLE)
    spectrum = Spectrum.of([negative, short], 9)
    assert spectrum.top == -1  # and not the 0 that fills up
    assert len(spectrum.flattened()[0]) == 3


def test_a_spectrum_is_a_value():
    spectrum = Spectrum.of(rules(), 6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spectrum.dimension = 7
    one, half = torch.ones(1, 1), torch.full((1, 1), 0.5)
    for values, weights, words in [
        (torch.ones(3), torch.ones(3), r"shape \(probes, M\)"),
        (torch.ones(1, 2), one, r"shape \(probes, M\)"),
        (torch.ones(1, 0), torch.ones(1, 0), r"shape \(probes, M\)"),
        (one * torch.nan, one, "must be finite"),
        (one, half, "must sum to 1"),
        (torch.ones(1, 2), torch.tensor([[2.0, -1.0]]), "must not be negative"),
    ]:
        with pytest.raises(BadInput, match=words):
            Spectrum(values, weights, 5)


def official_density(ritz: np.ndarray, weights: np.ndarray, bins: int, squared: float, overhead: float):
    low = np.mean([min(row) for row in ritz]) - overhead
    high = np.mean([max(row) for row in ritz]) + overhead
    grid = np.linspace(low, high, bins)
    variance = squared * max(1, high - low)
    density = np.zeros((len(ritz), bins))
    for i, j in itertools.product(range(len(ritz)), range(bins)):
        kernel = np.exp(-((grid[j] - ritz[i]) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        density[i, j] = (kernel * weights[i]).sum()
    mean = density.mean(0)
    return mean / (mean.sum() * (grid[1] - grid[0])), grid


@pytest.mark.parametrize("size", [0.3, 1.0, 30.0])
def test_reference_density(size):
    ritz = np.random.default_rng(0).normal(size=(3, 5)) * size
    weights = np.random.default_rng(1).dirichlet(np.ones(5), 3)
    ours = reference_density(torch.from_numpy(ritz), torch.from_numpy(weights), 400, 1e-3, 0.02)
    theirs = official_density(ritz, weights, 400, 1e-3, 0.02)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    density, grid = ours
    assert float(density.sum() * (grid[1] - grid[0])) == pytest.approx(1)


def test_densities_in_blocks(monkeypatch):
    ritz, weights = torch.linspace(-1, 3, 5, dtype=DOUBLE)[None], torch.full((1, 5), 0.2, dtype=DOUBLE)
    whole = reference_density(ritz, weights, 101, 1e-2)[0]
    monkeypatch.setattr("pruning_core.papers.how_sparse.curvature.measures.BLOCK", 17)
    torch.testing.assert_close(reference_density(ritz, weights, 101, 1e-2)[0], whole)


def test_reference_density_loses_what_lies_between_two_points():
    """Two Ritz values of equal weight: on a long grid, one of them on a point and one between two, one disappears."""
    ritz = torch.tensor([[0.0, 250.003, 500.0]], dtype=DOUBLE)
    density, grid = reference_density(ritz, torch.full((1, 3), 1 / 3, dtype=DOUBLE), 100001, 1e-10, 0.0)
    weight = [float(density[(grid - v).abs() < 1].sum() * (grid[1] - grid[0])) for v in ritz[0].tolist()]
    assert weight[1] < 1e-3
    assert weight[0] == pytest.approx(0.5, abs=1e-3)


def test_bad_densities():
    one = torch.ones(1, 2, dtype=DOUBLE)
    for arguments, words in [
        ((torch.ones(2), torch.ones(2)), r"one shape \(runs, k\)"),
        ((one, torch.ones(2, 2)), r"one shape \(runs, k\)"),
        ((one, one, 1), "number of bins must be at least 2"),
        ((one, one, 10.5), "must be a whole number"),
        ((one, one, 10, 0.0), "variance of a density"),
        ((torch.tensor([[-100.0, 100.0]]), one, 10, 1e-10, 3.0), "no grid point is near a Ritz value"),
    ]:
        with pytest.raises(PruningError, match=words):
            reference_density(*arguments)
