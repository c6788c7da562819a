r"""i-SpaSP where the truth is known: hidden rows of a given decay or a given support, and CoSaMP beside it.

A vector is p-compressible when its sorted entries fall like ``i^(-1/p)``. For rows of H with such sums, the theory lets the
squared residual fall like ``s^(1 - 2/p)`` with the number s of neurons kept (Wolfe and Kyrillidis 2022).
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pruning_core.checks import DOUBLE, Floats, Real, Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.methods.ispasp import two_layer
from pruning_core.methods.shared.reading import largest


@checked(p=None)
def compressible(hidden: int, samples: int, p: float, generator: torch.Generator) -> Tensor:
    """Hidden maps (samples, hidden) whose column sums are a permutation of ``i^(-1/p)``, i = 1 .. hidden; all >= 0.

    >>> maps = compressible(4, 3, 0.5, torch.Generator().manual_seed(0))
    >>> maps.shape, maps.sum(0).sort(descending=True).values.round(decimals=3)
    (torch.Size([3, 4]), tensor([1.0000, 0.2500, 0.1110, 0.0630], dtype=torch.float64))
    """
    check("the compressibility p", p, Real(above=0))
    rows = torch.randn(hidden, samples, generator=generator, dtype=DOUBLE).abs()
    sums = torch.arange(1, hidden + 1, dtype=DOUBLE) ** (-1 / p)
    rows *= (sums / rows.sum(1))[:, None]
    return rows[torch.randperm(hidden, generator=generator)].T.contiguous()


@checked(s=None)
def planted(hidden: int, samples: int, s: int, generator: torch.Generator, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Hidden maps (samples, hidden) with ``s`` active neurons, and their sorted indices.

    Active entries are |N(0, 1)|; the others are ``floor`` times that.

    >>> maps, active = planted(10, 5, 2, torch.Generator().manual_seed(0))
    >>> maps.shape, len(active)
    (torch.Size([5, 10]), 2)
    """
    s = check("s, the number of active neurons,", s, Whole(at_least=1, at_most=hidden))
    support = torch.randperm(hidden, generator=generator)[:s].sort().values
    maps = torch.randn(samples, hidden, generator=generator, dtype=DOUBLE).abs()
    factors = torch.full((hidden,), floor, dtype=DOUBLE)
    factors[support] = 1.0
    return maps * factors, support


@checked(p=Real(above=0))
def theory_slope(p: float) -> float:
    """Exponent of the squared residual in s: ``1 - 2/p``.

    >>> theory_slope(0.5)
    -3.0
    """
    return 1 - 2 / p


class CoSaMP(NamedTuple):
    """The estimate (unknowns,), its support (sorted), and the norm of the residual before and after each iteration."""

    estimate: Tensor
    support: Tensor
    residuals: list[float]


@checked(sensing=Floats(2), measured=Floats(1), s=None)
def cosamp(sensing: Tensor, measured: Tensor, s: int, iterations: int = 20) -> CoSaMP:
    """Recover an s-sparse x from ``measured = sensing x`` (Needell and Tropp 2009). Shapes (m, d), (m,) -> (d,).

    Where i-SpaSP looks its entries up in H, CoSaMP does not know them: on the merged set it solves least squares.

    >>> sensing = torch.eye(4, dtype=torch.float64)
    >>> cosamp(sensing, torch.tensor([0.0, 3.0, 0.0, 0.0], dtype=torch.float64), 1).support
    tensor([1])
    """
    d = sensing.shape[1]
    s = check("s, the number of entries to recover,", s, Whole(at_least=1, at_most=d))
    if measured.shape != sensing.shape[:1]:
        raise BadInput(f"CoSaMP needs {sensing.shape[0]} measurements for this matrix, not {tuple(measured.shape)}.")
    x = torch.zeros(d, dtype=sensing.dtype)
    residual = measured
    norms = [float(residual.norm())]
    for _ in range(iterations):
        proxy = (sensing.T @ residual).abs()
        merged = x != 0
        merged[largest(proxy, min(2 * s, d))] = True
        b = torch.zeros_like(x)
        b[merged] = torch.linalg.lstsq(sensing[:, merged], measured[:, None], driver="gelsd").solution[:, 0]
        keep = largest(b.abs(), s)
        x = torch.zeros_like(b)
        x[keep] = b[keep]
        residual = measured - sensing @ x
        norms.append(float(residual.norm()))
        if norms[-1] <= 1e-12 * norms[0]:
            break
    return CoSaMP(x, (x != 0).nonzero().flatten(), norms)


@checked(p=None)
def decay(
    hidden: int,
    p: float,
    sizes: Sequence[int],
    *,
    draws: int = 20,
    seed: int = 0,
    outputs: int = 10,
    samples: int = 100,
    methods: Sequence[str] = ("ispasp", "ispasp_abs", "activation_sum"),
) -> list[dict[str, Any]]:
    """Mean squared residual over ``draws`` against the number kept, for i-SpaSP (both ways to rank) and the largest sums.

    Rows: method, d_hid, p, s, residual. Weights (outputs, hidden) are N(0, 1), the maps :func:`compressible`.

    >>> rows = decay(40, 0.5, [5, 10], draws=1, methods=["ispasp"])
    >>> len(rows), rows[0]["residual"] > rows[1]["residual"]
    (2, True)
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[tuple[str, int], float] = {}
    for _ in range(draws):
        maps = compressible(hidden, samples, p, generator)
        weight = torch.randn(outputs, hidden, generator=generator, dtype=DOUBLE)
        sums, dense = maps.sum(0), maps @ weight.T
        for s in sizes:
            for method in methods:
                importance = "absolute" if method == "ispasp_abs" else "signed"
                of_sums = method == "activation_sum"
                support = largest(sums, s) if of_sums else two_layer(maps, weight, s, importance=importance).support
                residual = float((dense - maps[:, support] @ weight[:, support].T).square().sum())
                found[method, s] = found.get((method, s), 0.0) + residual / draws
    return [
        {"method": method, "d_hid": hidden, "p": p, "s": s, "residual": residual, "seed": seed}
        for (method, s), residual in found.items()
    ]


@checked
def slope(sizes: Iterable[float], residuals: Iterable[float]) -> float:
    """Slope of the least-squares line through log residual against log size.

    >>> round(slope([1, 2, 4], [1.0, 0.25, 0.0625]), 3)
    -2.0
    """
    x = torch.tensor(list(sizes), dtype=DOUBLE).log()
    y = torch.tensor(list(residuals), dtype=DOUBLE).log()
    if len(x) != len(y) or len(x.unique()) < 2 or not bool(torch.isfinite(torch.cat([x, y])).all()):
        raise BadInput("a slope needs at least two different positive sizes, and a positive residual for each.")
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


@checked
def recovery(
    hidden: int, s: int, outputs: int, *, draws: int = 20, seed: int = 0, samples: int = 50, floor: float = 0.0
) -> list[dict[str, Any]]:
    """How often planted supports are found exactly: by i-SpaSP, with signed and with absolute importance, and by CoSaMP.

    Rows: method, s, outputs, recovered (a fraction), seed. CoSaMP is given the sums only: the measurement of the row sums.

    >>> rows = recovery(40, 2, 20, draws=2)
    >>> sorted({row["method"] for row in rows})
    ['cosamp', 'ispasp', 'ispasp_abs']
    """
    generator = torch.Generator().manual_seed(seed)
    hits = {"ispasp": 0, "ispasp_abs": 0, "cosamp": 0}
    for _ in range(draws):
        maps, support = planted(hidden, samples, s, generator, floor)
        weight = torch.randn(outputs, hidden, generator=generator, dtype=DOUBLE) / outputs**0.5
        answers = [two_layer(maps, weight, s, importance=kind).support for kind in ("signed", "absolute")]
        answers.append(cosamp(weight, weight @ maps.sum(0), s).support)
        for method, answer in zip(hits, answers, strict=True):
            hits[method] += int(torch.equal(answer, support))
    return [
        {"method": method, "s": s, "outputs": outputs, "recovered": count / draws, "seed": seed}
        for method, count in hits.items()
    ]
