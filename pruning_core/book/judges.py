"""Judges of exercises that ask for code: each says whether a reader's function does what its exercise wants."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from pruning_core.methods import receding


def computes(reference: Callable, cases: Iterable[tuple]) -> Callable[[Callable], bool]:
    """A judge that compares a function with ``reference`` on ``cases``, tuples of arguments, to six digits.

    Tensors and arrays are handed over as copies, so that a function that changes them does not spoil the comparison.
    """
    cases = list(cases)

    def judge(function: Callable) -> bool:
        for case in cases:
            wanted = _numbers(reference(*_copies(case)))
            given = _numbers(function(*_copies(case)))
            if given.shape != wanted.shape or not np.allclose(given, wanted, rtol=1e-6, atol=1e-9):
                return False
        return True

    return judge


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value.detach().double().numpy() if isinstance(value, torch.Tensor) else value, dtype=float)


def _copies(case: tuple) -> list[Any]:
    return [entry.clone() if isinstance(entry, torch.Tensor) else entry for entry in case]


def _drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def is_magnitude_mask(function: Callable) -> bool:
    """Whether ``function(weights, sparsity)`` keeps exactly the largest entries, also where all are equal."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(7, 9, generator=generator), torch.randn(40, generator=generator), torch.ones(2, 2)
    for weights, sparsity in zip(drawn, (0.5, 0.9, 0.25), strict=True):
        mask = function(weights.clone(), sparsity)
        removed = math.floor(sparsity * weights.numel() + 0.5)
        if mask.dtype != torch.bool or mask.shape != weights.shape or int((~mask).sum()) != removed:
            return False
        if removed and weights[mask].abs().min() < weights[~mask].abs().max():
            return False
    return True


def is_relative_magnitude(method: type) -> bool:
    """Whether the class prunes by absolute weights divided by the largest of their layer, whatever the layers' scales are."""
    from pruning_core.pruning import prune

    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Linear(6, 9, bias=False), torch.nn.Linear(9, 5, bias=False)
    network, relative = torch.nn.Sequential(*layers), []
    for layer, scale in zip(layers, (1.0, 0.01), strict=True):
        torch.nn.init.normal_(layer.weight, std=scale, generator=generator)
        relative.append((layer.weight.abs() / layer.weight.abs().max()).flatten())
    masks = prune(network, method(), 0.6).masks
    alive = torch.cat([masks[name].flatten() for name in ("0.weight", "1.weight")])
    scores = torch.cat(relative)
    return bool(scores[alive].min() > scores[~alive].max())


def _largest_share(weight: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    shares = weight * points / (points @ weight)[:, None]
    return shares.amax(0)


def _unbiased(weight: torch.Tensor, q: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    return torch.where(counts > 0, weight * counts / (counts.sum() * q), 0.0)


def _filled(most: np.ndarray, total: float) -> np.ndarray:
    got = np.zeros(len(most))
    for served, i in enumerate(np.argsort(most)):
        got[i] = min(most[i], (total - got.sum()) / (len(most) - served))
    return got


def _distinct(q: torch.Tensor, m: int) -> float:
    return float((1 - (1 - q) ** m).sum())


def _reached(sparsities: list[float], accuracies: list[float], dense: float, level: float) -> float:
    return max((p for p, a in zip(sparsities, accuracies, strict=True) if a >= dense - level), default=0.0)


def _iteration(h: torch.Tensor, weight: torch.Tensor, support: torch.Tensor, s: int) -> torch.Tensor:
    missing = h.clone()
    missing[support] = 0
    proposals = (weight.T @ (weight @ missing)).topk(min(2 * s, len(h))).indices
    merged = torch.cat([proposals, support]).unique()
    return merged[h[merged].topk(s).indices].sort().values


def _repaired(test: torch.Tensor, left: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    signal, kept = dense - dense.mean(0), left - left.mean(0)
    return (test - left.mean(0)) * (signal * kept).sum() / kept.square().sum() + dense.mean(0)


def _crossing(asked: list[float], accuracy: list[float], half: float) -> float:
    i = next(i for i, value in enumerate(accuracy) if value < half)
    kept = np.log10(1 - np.asarray(asked))
    share = (accuracy[i - 1] - half) / (accuracy[i - 1] - accuracy[i])
    return float(10 ** (kept[i - 1] + share * (kept[i] - kept[i - 1])))


def _is_cut(function: Callable) -> bool:
    """Whether ``function(first, second, keep)`` returns the rows and the columns that stay."""
    first, second, keep = _drawn(4, 3), _drawn(2, 4), torch.tensor([True, False, True, True])
    rows, columns = function(first.clone(), second.clone(), keep.clone())
    return torch.equal(rows, first[keep]) and torch.equal(columns, second[:, keep])


def _ranked(scores: torch.Tensor, n: int) -> torch.Tensor:
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[scores.argsort(stable=True)[len(scores) - n :]] = True
    return mask


def _width(eigenvalues: torch.Tensor, distance: float, epsilon: float) -> float:
    from pruning_core.papers.how_sparse import normalised_width

    return normalised_width(distance, eigenvalues, epsilon)


def _distance(weights: torch.Tensor, n: int) -> torch.Tensor:
    from pruning_core.papers.how_sparse import magnitude_distance

    return magnitude_distance(weights)[n]


def _orthant_size(g: torch.Tensor) -> torch.Tensor:
    from pruning_core.papers.how_sparse import Orthant

    return Orthant(g.shape[1]).project(g).square().sum(1).mean()


def _mid_shares(importances: torch.Tensor) -> tuple[float, float]:
    relative = importances / importances.max()
    receded, middle = relative < 0.1, (relative >= 0.1) & (relative < 0.5)
    return float(receded.double().mean()), float(middle.double().mean())


def _kept(scores: list[torch.Tensor], p: float) -> list[int]:
    every = torch.cat(scores).sort().values
    gone = round(p * len(every))
    limit = every[gone] if gone < len(every) else float("inf")
    return [int((layer >= limit).sum()) for layer in scores]


_q = _drawn(6) / _drawn(6).sum()
_counts = torch.tensor([3.0, 0.0, 1.0, 0.0, 2.0, 4.0], dtype=torch.float64)

JUDGES: dict[str, Callable[[Any], bool]] = {
    "sparsity/write-sparsity": computes(
        lambda masks: 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks),
        [([_drawn(4, 5) > 0.6, _drawn(3, seed=1) > 0.2],), ([torch.ones(7, dtype=torch.bool)],)],
    ),
    "schedules/magnitude-mask": is_magnitude_mask,
    "groups/write-cut": _is_cut,
    "failures/write-rank": computes(
        _ranked, [(torch.tensor([0.0, 0.0, 1.0, 0.0, 2.0]), 3), (torch.ones(6), 2), (_drawn(9), 0), (torch.zeros(4), 4)]
    ),
    "network/own-method": is_relative_magnitude,
    "footing/score": computes(lambda weight: weight.abs().flatten(1).amax(1), [(_drawn(5, 3, 2, 4) - 0.5,)]),
    "sensitivity/write-share": computes(
        _largest_share, [(_drawn(4), _drawn(7, 4, seed=1)), (_drawn(1) + 1, _drawn(3, 1) + 1)]
    ),
    "sensitivity/write-unbiased": computes(_unbiased, [(_drawn(6, seed=2), _q, _counts)]),
    "sensitivity/write-fill": computes(
        _filled, [(np.array([100, 20]), 60), (np.array([5, 1, 50, 9]), 30), (np.array([7, 7]), 14)]
    ),
    "sensitivity/write-distinct": computes(_distinct, [(_q, 1), (_q, 5), (_q, 40)]),
    "sensitivity/write-reached": computes(
        _reached,
        [
            ([0.5, 0.8, 0.9], [98.0, 97.6, 90.0], 98.0, 0.5),
            ([0.9, 0.5], [97.9, 97.0], 98.0, 0.5),
            ([0.5, 0.8], [90.0, 80.0], 98.0, 0.5),
        ],
    ),
    "ispasp/write-iteration": computes(
        _iteration,
        [
            (_drawn(12), _drawn(4, 12, seed=5) - 0.5, torch.tensor([], dtype=torch.long), 3),
            (_drawn(12), _drawn(4, 12, seed=6) - 0.5, torch.tensor([0, 4, 7]), 3),
            (_drawn(5), _drawn(2, 5, seed=7) - 0.5, torch.tensor([1, 2, 4]), 3),
        ],
    ),
    "ispasp/write-repair": computes(_repaired, [(_drawn(5, 3), _drawn(9, 3, seed=1), _drawn(9, 3, seed=2))]),
    "ispasp/write-macs": computes(
        lambda inside, width, size: 18 * inside * width * size**2, [(25, 64, 56), (3, 5, 7), (64, 64, 1)]
    ),
    "snip/write-transition": computes(
        _crossing,
        [([0.5, 0.9, 0.99], [98.0, 90.0, 20.0], 54.0), ([0.8, 0.9, 0.95, 0.98], [90.0, 60.0, 40.0, 30.0], 50.0)],
    ),
    "snip/write-elasticity": computes(
        lambda weight, gradient, loss: (weight * gradient / loss).abs(),
        [(_drawn(3, 4) - 0.5, _drawn(3, 4, seed=1) - 0.5, 2.5), (_drawn(2), -_drawn(2, seed=1), -0.3)],
    ),
    "snap/write-gate": computes(
        lambda weight, bias, dw, db: (weight * dw).sum(1) + bias * db,
        [(_drawn(3, 5) - 0.5, _drawn(3, seed=1), _drawn(3, 5, seed=2) - 0.5, _drawn(3, seed=3) - 0.5)],
    ),
    "robustness/write-fgsm": computes(
        lambda image, gradient, size: (image + size * gradient.sign()).clamp(0, 1),
        [(_drawn(1, 4, 4), _drawn(1, 4, 4, seed=1) - 0.5, size) for size in (0.05, 0.4)],
    ),
    "how_sparse/write-orthant": computes(_orthant_size, [(_drawn(9, 4) - 0.5,), (_drawn(1, 7, seed=3) - 0.9,)]),
    "how_sparse/write-distance": computes(_distance, [(_drawn(20) - 0.5, n) for n in (0, 1, 12)]),
    "how_sparse/write-hvp": computes(
        lambda loss, x, v: torch.autograd.functional.hvp(loss, x, v)[1],
        [(lambda x: (x**3).sum() + x.prod(), _drawn(4) + 0.5, _drawn(4, seed=1))],
    ),
    "how_sparse/write-width": computes(
        _width, [(_drawn(30) ** 3, 2.0, 0.1), (torch.tensor([0.0, 0.0, 5.0]), 3.0, 0.01)]
    ),
    "how_sparse/write-rounds": computes(
        lambda p, rounds: [(1 - p) ** (i / rounds) for i in range(1, rounds + 1)], [(0.9, 1), (0.96, 4)]
    ),
    "rni/write-penalty": computes(receding, [(torch.tensor([-800.0, -3.0, 0.0, 4.0]).double(), b) for b in (0.0, 3.0)]),
    "rni/write-shares": computes(
        _mid_shares, [(_drawn(40) ** 4,), (torch.tensor([1.0, 0.1, 0.5, 0.05]),), (torch.tensor([3.0, 0.2, 1.0]),)]
    ),
    "rni/write-kept": computes(_kept, [([_drawn(12), _drawn(5, seed=3)], p) for p in (0.0, 0.3, 0.75)]),
}
"""Exercise -> what judges its answer."""
