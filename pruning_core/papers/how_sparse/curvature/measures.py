"""What products of the Hessian H, (D, D), with vectors tell: its trace, largest eigenvalues, spectrum and null rows.

>>> samples = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
>>> hessian = Hessian(torch.nn.Linear(2, 1, bias=False).eval(), samples, torch.nn.functional.mse_loss)
>>> exact_hessian(hessian).diag(), null_row_share(hessian, rows=torch.tensor([0, 1]), tolerance=2.0).share
(tensor([1., 4.]), 0.5)
>>> trace_estimate(hessian, 4, generator=Generator().manual_seed(0)).value
5.0
>>> spectrum(hessian, generator=Generator().manual_seed(0), progress=False).eigenvalues
tensor([[1., 4.]], dtype=torch.float64)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from pruning_core.checks import Real, Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.hessian import Hessian, LivingHessian, Parameters, matching
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, largest_eigenvalues, quadrature, rademacher
from pruning_core.progress import progress_bar

BLOCK = 2**22  # numbers in a block of kernels
NULL_ROW = 1e-7 * 128  # the official 1e-7 belongs to norms divided by the batch size, which is 128 there


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Weighted points that stand for the eigenvalues of a matrix (dimension, dimension).

    ``eigenvalues`` and ``weights``, float64 (probes, M) each; the weights of a probe sum to 1 (entries of weight 0 fill up
    probes that ended early). ``exact``: these are all the eigenvalues, in one row, each with weight 1 / dimension.

    >>> Spectrum(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.75, 0.25]]), dimension=4).dimension
    4
    """

    eigenvalues: Tensor
    weights: Tensor
    dimension: int
    exact: bool = False

    def __post_init__(self) -> None:
        if self.eigenvalues.dim() != 2 or self.eigenvalues.shape != self.weights.shape or not self.weights.numel():
            shapes = f"{tuple(self.eigenvalues.shape)} and {tuple(self.weights.shape)}"
            raise BadInput(f"eigenvalues and weights of a spectrum must both have the shape (probes, M), not {shapes}.")
        if not bool(torch.isfinite(self.eigenvalues).all()):
            raise BadInput("the eigenvalues of a spectrum must be finite.")
        sums = self.weights.sum(1)
        if not (bool((self.weights >= 0).all()) and bool(((sums - 1).abs() < 1e-6).all())):
            raise BadInput("the weights of a spectrum must not be negative and must sum to 1 for every probe.")

    @classmethod
    def of(cls, rules: Sequence[tuple[Tensor, Tensor]], dimension: int) -> "Spectrum":
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


class TraceEstimate(NamedTuple):
    """Hutchinson's estimate, its standard error, and the estimates (probes,) of the single probes, float64."""

    value: float
    standard_error: float
    samples: Tensor


class NullRows(NamedTuple):
    """Share of the rows with a norm below the tolerance, in [0, 1]; the norms (n,), float64; their indices (n,)."""

    share: float
    norms: Tensor
    indices: Tensor


@checked
def trace_estimate(
    hessian: Hessian, probes: int = 30, *, generator: Generator, progress: bool = False
) -> TraceEstimate:
    """The trace of H: the mean of v' H v over random vectors v of +1 and -1 (Hutchinson 1990); at least 2 probes."""
    check("the number of probes", probes, Whole(at_least=2))
    samples = torch.zeros(probes, dtype=torch.float64)
    for i in progress_bar(progress, iterable=range(probes), desc="trace"):
        v = rademacher(hessian.dimension, generator, hessian.dtype, hessian.device)
        samples[i] = torch.dot(v, hessian.matvec(v))
    return TraceEstimate(float(samples.mean()), float(samples.std()) / math.sqrt(probes), samples)


def top_eigenvalues(
    hessian: Hessian, n: int = 1, *, generator: Generator, tolerance: float = 1e-4, steps: int = 100, by: str = "value"
) -> tuple[Tensor, Tensor]:
    """The n largest eigenvalues of H (``by="magnitude"``: in magnitude) and residuals, see ``largest_eigenvalues``."""
    if check("the number of eigenvalues", n, Whole(at_least=1)) > hessian.dimension:
        raise BadInput(f"{n} eigenvalues are more than the {hessian.dimension} parameters.")
    check("the number of steps", steps, Whole(at_least=1))
    tolerance = check("tolerance", tolerance, Real(above=0, below=1))
    start = torch.randn(hessian.dimension, n, generator=generator, device=generator.device, dtype=hessian.dtype)
    return largest_eigenvalues(hessian.matvec, start.to(hessian.device), steps, tolerance=tolerance, by=by)


@checked
def exact_hessian(hessian: Hessian | LivingHessian, *, memory: int = 2**31, progress: bool = False) -> Tensor:
    """H itself, (D, D), from D products, made symmetric.

    Raises BadInput when two such matrices do not fit into ``memory`` bytes, or when H is not symmetric to rounding: the
    loss then has no second derivative here, or another value each time.
    """
    needed = 2 * hessian.dimension**2 * hessian.dtype.itemsize
    if needed > memory:
        raise BadInput(
            f"a Hessian of {hessian.dimension} parameters needs {needed / 2**30:.1f} GiB, more than {memory / 2**30:.1f}; "
            "use spectrum()."
        )
    rows = progress_bar(progress, iterable=range(hessian.dimension), desc="exact Hessian")
    matrix = torch.stack([hessian.matvec(_unit(hessian, i)) for i in rows])
    skew, largest = float((matrix - matrix.T).abs().max()), float(matrix.abs().max())
    if skew > (1e-3 if hessian.dtype == torch.float32 else 1e-8) * largest:
        raise BadInput(f"the Hessian is not symmetric: two entries differ by {skew:.1e}, the largest is {largest:.1e}.")
    return (matrix + matrix.T) / 2


@checked
def spectrum(
    hessian: Hessian | LivingHessian,
    *,
    probes: int = 1,
    steps: int = 128,
    generator: Generator,
    exact_below: int = 5000,
    reference: bool = False,
    progress: bool = True,
) -> Spectrum:
    """The spectrum of H: exact for at most ``exact_below`` parameters, otherwise by Lanczos quadrature.

    ``probes`` random starts of +1 and -1 with ``steps`` products each; ``reference`` as in ``lanczos``. Raises BadInput for
    more steps than parameters.
    """
    check("the number of probes", probes, Whole(at_least=1))
    check("the number of Lanczos steps", steps, Whole(at_least=1))
    d = hessian.dimension
    if d <= exact_below:
        values = torch.linalg.eigvalsh(exact_hessian(hessian, progress=progress).double()).cpu()[None]
        return Spectrum(values, torch.full_like(values, 1 / d), d, exact=True)
    rules = []
    with progress_bar(progress, total=probes * steps, desc="Lanczos", unit="product") as bar:

        def product(v: Tensor) -> Tensor:
            bar.update()
            return hessian.matvec(v)

        for _ in range(probes):
            start = rademacher(d, generator, hessian.dtype, hessian.device)
            rules.append(quadrature(*lanczos(product, start, steps, generator=generator, reference=reference)))
    return Spectrum.of(rules, d)


@checked
def reference_density(
    ritz: Tensor, weights: Tensor, bins: int = 100000, variance: float = 1e-10, overhead: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Density and grid, float64 (bins,) each, as the official code of Zhang et al. (2024) makes them; sum * step is 1.

    ``ritz`` and ``weights`` (runs, k). The grid reaches ``overhead`` beyond the smallest and the largest Ritz value, both
    averaged over runs; the kernels have the variance ``variance * max(1, length of the grid)``. Once the grid is longer
    than about 10, its steps are wider than the kernels, and Ritz values between two grid points lose their weight.

    >>> density, grid = reference_density(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), bins=100)
    >>> density.shape, grid.shape
    (torch.Size([100]), torch.Size([100]))
    """
    if ritz.dim() != 2 or ritz.shape != weights.shape or not ritz.numel():
        shapes = f"{tuple(ritz.shape)}, {tuple(weights.shape)}"
        raise BadInput(f"ritz and weights must have one shape (runs, k), not {shapes}.")
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


def row_norms(hessian: Hessian, indices: Iterable[int] | Tensor, *, reference: bool = False) -> Tensor:
    """The l1 norms, float64 (n,), of the rows ``indices`` (n,) of H.

    ``reference=True``, as the official code of Zhang et al. (2024): the norms of the rows of every batch's own Hessian,
    summed over batches and divided by the number of samples. For batches of one size n that is 1/n of the mean of norms;
    what cancels between batches does not cancel here.
    """
    rows = [int(i) for i in indices]
    for i in rows:
        if not 0 <= i < hessian.dimension:
            raise BadInput(f"row {i} is none of the {hessian.dimension} rows, which count from 0.")
    hessian.check_unchanged()
    total = torch.zeros(len(rows), dtype=torch.float64)
    if not reference:
        for k, i in enumerate(rows):
            total[k] = hessian.matvec(_unit(hessian, i)).abs().sum(dtype=torch.float64)
        return total
    for batch in hessian.batches:
        gradient = hessian.gradient(*batch)
        for k, i in enumerate(rows):
            total[k] += hessian.differentiate(gradient, _unit(hessian, i)).abs().sum(dtype=torch.float64).cpu()
    return total / hessian.samples


def percentile_rows(hessian: Hessian, parameters: Parameters = None, *, reference: bool = False) -> Tensor:
    """Rows, int64 (100,), of the weights whose magnitude is that of the 0, 1, ..., 99 % quantile.

    Of all N weights of the tensors ``parameters`` (among the coordinates; None: those with 2 dimensions or more) the
    ``max(1, ceil(q N / 100))``-th smallest. Of equal ones that of its rank in the order of the coordinates, or, with
    ``reference=True``, the first in the last coordinate tensor that holds one, biases and norms included.
    """
    chosen: Parameters = (lambda name, weight: weight.dim() > 1) if parameters is None else parameters
    names = list(matching({name: hessian.model.get_parameter(name) for name in hessian.shapes}, chosen))
    if not names:
        raise BadInput("there is no weight with 2 dimensions or more to take quantiles of; say which with parameters.")
    sizes = [shape.numel() for shape in hessian.shapes.values()]
    every = dict(zip(hessian.shapes, hessian.weights().abs().split(sizes), strict=True))
    places = dict(zip(hessian.shapes, torch.arange(hessian.dimension).split(sizes), strict=True))
    pooled = torch.cat([every[name] for name in names])
    order = pooled.sort(stable=True).indices.cpu()
    ranks = [max(math.ceil(q / 100 * len(pooled)), 1) - 1 for q in range(100)]
    if not reference:
        return torch.cat([places[name] for name in names])[order[ranks]]
    rows = []
    for threshold in pooled[order[ranks].to(pooled.device)]:
        held = [places[name][(values == threshold).cpu()] for name, values in every.items()]
        rows.append(next(found[0] for found in reversed(held) if len(found)))
    return torch.stack(rows)


@checked(tolerance=None)
def null_row_share(
    hessian: Hessian,
    parameters: Parameters = None,
    *,
    rows: Tensor | None = None,
    tolerance: float | None = None,
    reference: bool = False,
) -> NullRows:
    """The share of rows of H with an l1 norm below ``tolerance``, among those of :func:`percentile_rows` or ``rows``.

    ``reference=True`` takes :func:`row_norms` and rows in the official way, and 1e-7 as tolerance; otherwise the tolerance
    is by default 1.28e-5, which is the same for batches of 128. The official code counts batch norm's scale and shift as
    coordinates here: make the Hessian with ``exclude_norms=False`` to follow it.
    """
    tolerance = (1e-7 if reference else NULL_ROW) if tolerance is None else tolerance
    check("the tolerance of a null row", tolerance, Real(above=0))
    rows = percentile_rows(hessian, parameters, reference=reference) if rows is None else rows
    if not len(rows):
        raise BadInput("there is no row to take a share of.")
    norms = row_norms(hessian, rows, reference=reference)
    return NullRows(float((norms < tolerance).double().mean()), norms, rows)


def _unit(hessian: Hessian | LivingHessian, i: int) -> Tensor:
    return (torch.arange(hessian.dimension, device=hessian.device) == i).to(hessian.dtype)
