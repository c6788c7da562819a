r"""What second derivatives of the loss tell about a trained network: trace, largest eigenvalues, spectrum, null rows.

All of it comes from products of the Hessian H, (D, D), with vectors (``Hessian``); here are also
the losses of single batches, and the loss tolerance that is taken from their spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import Real, Whole, check
from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.batches import (
    Batches,
    Loss,
    finite_loss,
    forward_pass,
    pairs,
    refuse_training,
)
from pruning_core.papers.how_sparse.curvature.hessian import Hessian, LivingHessian, Parameters, matching
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, largest_eigenvalues, quadrature, rademacher
from pruning_core.papers.how_sparse.curvature.spectrum import Spectrum
from pruning_core.progress import progress_bar
from pruning_core.training.evaluation import CrossEntropy, like_model

NULL_ROW = 1e-7 * 128  # the official 1e-7 belongs to norms divided by the batch size, which is 128 there


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


def trace_estimate(
    hessian: Hessian, probes: int = 30, *, generator: torch.Generator, progress: bool = False
) -> TraceEstimate:
    """The trace of H: the mean of v' H v over random vectors v of +1 and -1 (Hutchinson 1990); at least 2 probes."""
    check("the number of probes", probes, Whole(at_least=2))
    found = []
    for _ in progress_bar(progress, iterable=range(probes), desc="trace"):
        v = rademacher(hessian.dimension, generator, hessian.dtype, hessian.device)
        found.append(float(torch.dot(v, hessian.matvec(v))))
    samples = torch.tensor(found, dtype=torch.float64)
    return TraceEstimate(float(samples.mean()), float(samples.std()) / math.sqrt(probes), samples)


def top_eigenvalues(
    hessian: Hessian,
    n: int = 1,
    *,
    generator: torch.Generator,
    tolerance: float = 1e-4,
    steps: int = 100,
    by: str = "value",
) -> tuple[Tensor, Tensor]:
    """The n largest eigenvalues (``by="magnitude"``: largest in magnitude), descending, and their residuals, (n,) each.

    Block Lanczos of at most ``steps`` times n products, see ``largest_eigenvalues``.
    """
    if check("the number of eigenvalues", n, Whole(at_least=1)) > hessian.dimension:
        raise BadInput(f"{n} eigenvalues are more than the {hessian.dimension} parameters.")
    check("the number of steps", steps, Whole(at_least=1))
    tolerance = check("tolerance", tolerance, Real(above=0, below=1))
    start = torch.randn(hessian.dimension, n, generator=generator, device=generator.device, dtype=hessian.dtype)
    return largest_eigenvalues(hessian.matvec, start.to(hessian.device), steps, tolerance=tolerance, by=by)


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
    matrix = torch.empty(hessian.dimension, hessian.dimension, dtype=hessian.dtype, device=hessian.device)
    for i in progress_bar(progress, iterable=range(hessian.dimension), desc="exact Hessian"):
        matrix[i] = hessian.matvec(_unit(hessian, i))
    skew, largest = float((matrix - matrix.T).abs().max()), float(matrix.abs().max())
    if skew > (1e-3 if hessian.dtype == torch.float32 else 1e-8) * largest:
        raise BadInput(f"the Hessian is not symmetric: two entries differ by {skew:.1e}, the largest is {largest:.1e}.")
    return (matrix + matrix.T) / 2


def spectrum(
    hessian: Hessian | LivingHessian,
    *,
    probes: int = 1,
    steps: int = 128,
    generator: torch.Generator,
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
    if not reference:
        found = [hessian.matvec(_unit(hessian, i)).abs().sum(dtype=torch.float64) for i in rows]
        return torch.stack(found).cpu() if found else torch.zeros(0, dtype=torch.float64)
    total = torch.zeros(len(rows), dtype=torch.float64)
    for batch in hessian.batches:
        gradient = hessian.gradient(*batch)
        parts = [hessian.differentiate(gradient, _unit(hessian, i)).abs().sum(dtype=torch.float64) for i in rows]
        total += torch.stack(parts).cpu() if parts else total
    return total / hessian.samples


def percentile_rows(hessian: Hessian, parameters: Parameters = None, *, reference: bool = False) -> Tensor:
    """Rows, int64 (100,), of the weights whose magnitude is that of the 0, 1, ..., 99 % quantile.

    Of all N weights of the tensors ``parameters`` (among the coordinates; None: those with 2 dimensions or more) the
    ``max(1, ceil(q N / 100))``-th smallest. Of equal ones that of its rank in the order of the coordinates, or, with
    ``reference=True``, the first in the last coordinate tensor that holds one, biases and norms included.
    """
    if parameters is None:
        names = [name for name, shape in hessian.shapes.items() if len(shape) > 1]
    else:
        names = list(matching({name: hessian.model.get_parameter(name) for name in hessian.shapes}, parameters))
    if not names:
        raise BadInput("there is no weight with 2 dimensions or more to take quantiles of; say which with parameters.")
    parts = hessian.weights().split([shape.numel() for shape in hessian.shapes.values()])
    every = dict(zip(hessian.shapes, parts, strict=True))
    offsets, end = {}, 0
    for name, values in every.items():
        offsets[name], end = end, end + len(values)
    pooled = torch.cat([every[name].abs() for name in names])
    place = torch.cat([torch.arange(offsets[name], offsets[name] + len(every[name])) for name in names])
    order = pooled.sort(stable=True).indices.cpu()
    ranks = [max(math.ceil(q / 100 * len(pooled)), 1) - 1 for q in range(100)]
    if not reference:
        return place[order[ranks]]
    rows = []
    for threshold in pooled[order[ranks].to(pooled.device)]:
        held = [(name, (values.abs() == threshold).nonzero()) for name, values in every.items()]
        rows.append(next(offsets[name] + int(where[0]) for name, where in reversed(held) if len(where)))
    return torch.tensor(rows)


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


def batch_losses(model: nn.Module, batches: Batches, loss: Loss | None = None) -> Tensor:
    """The mean loss of every batch, float64 (batches,), of a network in evaluation mode."""
    refuse_training(model)
    found = []
    with forward_pass(next(model.parameters()).device), torch.no_grad():
        for number, batch in enumerate(pairs(batches), 1):
            inputs, labels = like_model(model, *batch)
            found.append(finite_loss((loss or CrossEntropy())(model(inputs), labels), number))
    return torch.tensor(found, dtype=torch.float64)


def loss_tolerance(losses: Tensor) -> float:
    """The tolerance epsilon of Zhang et al. (2024): the standard deviation (over n) of the batches' mean losses, (n,).

    A short last batch counts like the others. The value shrinks with the batch size, about as one over its root. Raises
    BadInput for a single batch, or batches of equal losses, which leave no tolerance.
    """
    losses = torch.as_tensor(losses, dtype=torch.float64)
    if losses.dim() != 1 or len(losses) < 2:
        raise BadInput(f"a tolerance needs the losses of at least 2 batches, not a tensor {tuple(losses.shape)}.")
    if not bool(torch.isfinite(losses).all()):
        raise BadInput("a tolerance cannot be taken of losses that are NaN or infinite.")
    found = float(losses.std(correction=0))
    if not found > 0:
        raise BadInput("all batches have the same loss, so the tolerance is zero.")
    return found


def _unit(hessian: Hessian | LivingHessian, i: int) -> Tensor:
    v = torch.zeros(hessian.dimension, dtype=hessian.dtype, device=hessian.device)
    v[i] = 1
    return v
