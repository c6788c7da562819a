"""Symmetric matrices with given eigenvalues, and starts of Lanczos for them."""

import torch

from pruning_core.papers.how_sparse.curvature.lanczos import largest_eigenvalues
from tests.papers.how_sparse.draws import DOUBLE, seeded


def symmetric(eigenvalues, seed: int = 0, dtype=DOUBLE) -> torch.Tensor:
    """A dense matrix with these eigenvalues and random eigenvectors."""
    values = torch.as_tensor(eigenvalues, dtype=DOUBLE)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=seeded(seed), dtype=DOUBLE)).Q
    return ((q * values) @ q.T).to(dtype)


def by(matrix: torch.Tensor):
    return lambda v: matrix @ v


def start_of(d: int, seed: int = 1, dtype=DOUBLE) -> torch.Tensor:
    return torch.randn(d, generator=seeded(seed), dtype=DOUBLE).to(dtype)


def found(values, n, dtype=DOUBLE, seed=2, **options):
    matrix = symmetric(values, dtype=dtype)
    start = torch.randn(len(values), n, generator=seeded(seed), dtype=DOUBLE).to(dtype)
    return largest_eigenvalues(by(matrix), start, options.pop("steps", 50), **options)
