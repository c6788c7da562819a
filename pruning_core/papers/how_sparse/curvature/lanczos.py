r"""Spectra of symmetric matrices that are known only by their products with vectors: Lanczos and its quadrature.

M steps of Lanczos from a unit vector v turn a symmetric H, (D, D), into a tridiagonal T, (M, M). With the eigenpairs
(theta_m, y_m) of T, the Ritz values theta_m and the weights ``tau_m = (first entry of y_m)^2`` form the Gauss rule

    v' f(H) v  ~  sum_m tau_m f(theta_m)        (exact for polynomials f up to degree 2 M - 1)

For a random v with entries +1 or -1, scaled to length 1, the left side is trace(f(H)) / D on average: the spectrum of H
as a set of weighted points (Golub and Welsch 1969; Ubaru, Chen and Saad 2017; for networks Yao et al. 2020, PyHessian).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pruning_core.checks import Real, Whole, check, checked
from pruning_core.errors import BadInput, BadType, known_name

Product = Callable[[Tensor], Tensor]

OFFICIAL_OFFSET = 1e-6  # what the official code adds to every norm before it divides


class Tridiagonal(NamedTuple):
    """``alpha`` (k,), the diagonal, and ``beta`` (k - 1,), the one beside it: float64 on the CPU; k <= the steps asked for."""

    alpha: Tensor
    beta: Tensor


@checked
def rademacher(
    dimension: int, generator: torch.Generator, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Tensor:
    """A vector (dimension,) of +1 and -1, each with probability 1/2, drawn where the generator lives.

    >>> set(rademacher(20, torch.Generator().manual_seed(0)).tolist()) == {-1.0, 1.0}
    True
    """
    signs = torch.randint(2, (dimension,), generator=generator, device=generator.device)
    return signs.mul_(2).sub_(1).to(device, dtype)


@checked(start=None, steps=None)
def lanczos(
    matvec: Product,
    start: Tensor,
    steps: int,
    *,
    breakdown: float = 1e-10,
    reference: bool = False,
    generator: torch.Generator | None = None,
) -> Tridiagonal:
    """``steps`` Lanczos steps with the symmetric matrix ``matvec``, (D,) -> (D,), from ``start``, (D,), of any length.

    Two passes of Gram-Schmidt keep each vector orthogonal to all earlier ones, which takes ``steps * D`` numbers of memory.
    The steps end early, with shorter results, when the space that the powers of H span from ``start`` is exhausted: when a
    beta is below ``breakdown`` times the largest row sum of \\|T\\|, a bound of max \\|theta\\|, or below what the precision
    of ``start`` resolves.

    ``reference=True`` does what the official code of "How Sparse Can We Prune a Deep Network" (Zhang et al. 2024) does,
    which follows PyHessian: 1e-6 is added to norms before a division, one pass of modified Gram-Schmidt after beta was
    taken, no early end; only where beta is exactly 0 a Gaussian vector from ``generator`` takes over. Raises BadInput for
    more steps than D, a start of zeros, or products that are not finite.

    >>> matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    >>> found = lanczos(lambda v: matrix @ v, torch.ones(3, dtype=torch.float64), 3)
    >>> quadrature(found.alpha, found.beta)[0].round(decimals=6)
    tensor([1., 2., 3.], dtype=torch.float64)
    """
    if not isinstance(start, Tensor) or start.dim() != 1 or start.dtype not in (torch.float32, torch.float64):
        raise BadType("the start of Lanczos must be a tensor (D,) of float32 or float64.")
    if check("the number of Lanczos steps", steps, Whole(at_least=1)) > len(start):
        raise BadInput(f"{steps} Lanczos steps are more than the {len(start)} parameters; take at most that many.")
    size = float(start.norm())
    if not (math.isfinite(size) and size > 0):
        raise BadInput(f"the start of Lanczos must have a finite length above 0, not {size}.")
    if reference:
        return _reference(matvec, start, steps, generator)
    smallest = max(check("breakdown", breakdown, Real(at_least=0, below=1)), 10 * torch.finfo(start.dtype).eps)
    basis = start.new_empty(steps, len(start))
    alpha: list[float] = []
    beta: list[float] = []
    v, before, b = start / size, torch.zeros_like(start), 0.0
    for step in range(steps):
        basis[step] = v
        u = _product(matvec, v)
        alpha.append(float(torch.dot(v, u)))
        if step + 1 == steps:
            break
        u = u - alpha[-1] * v - b * before
        for _ in range(2):
            u -= basis[: step + 1].T @ (basis[: step + 1] @ u)
        b = float(u.norm())
        if b <= smallest * max(abs(a) + x + y for a, x, y in zip(alpha, [0.0, *beta], [*beta, 0.0], strict=True)):
            break
        beta.append(b)
        before, v = v, u / b
    return _tridiagonal(alpha, beta)


def _reference(matvec: Product, start: Tensor, steps: int, generator: torch.Generator | None) -> Tridiagonal:
    basis = [start / (start.norm() + OFFICIAL_OFFSET)]
    u = _product(matvec, basis[0])
    alpha = [float(torch.dot(basis[0], u))]
    beta: list[float] = []
    u = u - alpha[0] * basis[0]
    for _ in range(1, steps):
        beta.append(float(u.norm()))
        if beta[-1] == 0:
            generator = generator or torch.Generator()
            u = torch.randn(len(start), generator=generator, device=generator.device, dtype=start.dtype).to(start)
        for earlier in basis:
            u = u - torch.dot(u, earlier) * earlier
        basis.append(u / (u.norm() + OFFICIAL_OFFSET))
        u = _product(matvec, basis[-1])
        alpha.append(float(torch.dot(basis[-1], u)))
        u = u - alpha[-1] * basis[-1] - beta[-1] * basis[-2]
    return _tridiagonal(alpha, beta)


def _product(matvec: Product, v: Tensor) -> Tensor:
    product = matvec(v)
    if not isinstance(product, Tensor):
        raise BadType(f"the product of the matrix with a vector must be a tensor, not {type(product).__name__}.")
    if product.shape != v.shape:
        raise BadInput(f"the product of a vector {tuple(v.shape)} must have its shape, not {tuple(product.shape)}.")
    if not bool(torch.isfinite(product).all()):
        raise BadInput("the product of the matrix with a vector is NaN or infinite.")
    return product


def _tridiagonal(alpha: list[float], beta: list[float]) -> Tridiagonal:
    return Tridiagonal(torch.tensor(alpha, dtype=torch.float64), torch.tensor(beta, dtype=torch.float64))


@checked
def quadrature(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Ritz values (k,), ascending, and their weights (k,), which sum to 1, of T with diagonal (k,) and sides (k - 1,).

    >>> values, weights = quadrature(torch.tensor([2.0, 2.0]).double(), torch.tensor([1.0]).double())
    >>> values.round(decimals=6), weights.round(decimals=6)
    (tensor([1., 3.], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    if alpha.dim() != 1 or beta.dim() != 1 or len(alpha) == 0 or len(beta) != len(alpha) - 1:
        raise BadInput(f"alpha (k,) needs beta (k - 1,), not {tuple(alpha.shape)} and {tuple(beta.shape)}.")
    alpha, beta = alpha.double(), beta.double()
    values, vectors = torch.linalg.eigh(torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1))
    return values, vectors[0] ** 2


def largest_eigenvalues(
    matvec: Product, start: Tensor, steps: int, *, tolerance: float = 1e-4, by: str = "value"
) -> tuple[Tensor, Tensor]:
    """The n largest eigenvalues of ``matvec``, descending, and their residuals ``|H x - theta x|``, float64 (n,) each.

    Block Lanczos: ``start`` (D, n) spans the first of at most ``steps`` blocks, n products each, so an eigenvalue is found
    as often as it occurs, up to n times. Done when every residual, a bound of its eigenvalue's error, is at most
    ``tolerance`` times the largest \\|theta\\|. ``by="magnitude"`` looks for the largest \\|eigenvalues\\|. Memory:
    steps * n vectors. Raises BadInput when ``steps`` do not suffice.
    """
    known_name("order of eigenvalues", by, ("value", "magnitude"))
    n = start.shape[1]
    basis = new = torch.linalg.qr(start).Q
    projected = start.new_zeros(0, 0, dtype=torch.float64)
    residuals = start.new_zeros(0)
    for _ in range(steps):
        rest = torch.stack([_product(matvec, column) for column in new.T], 1)
        known, width = projected.shape[0], basis.shape[1]
        grown = projected.new_zeros(width, width)
        grown[:known, :known] = projected
        grown[:, known:] = (basis.T @ rest).double()
        grown[known:] = grown[:, known:].T.clone()
        projected = (grown + grown.T) / 2
        for _ in range(2):
            rest = rest - basis @ (basis.T @ rest)
        found, vectors = torch.linalg.eigh(projected)
        order = (found.abs() if by == "magnitude" else found).argsort(descending=True)[:n]
        values = found[order]
        residuals = (rest @ vectors[known:, order].to(rest)).norm(dim=0).double()
        largest = float(found.abs().max())
        q, r = torch.linalg.qr(rest)
        u, sizes, _ = torch.linalg.svd(r)
        new = (q @ u)[:, sizes > 10 * torch.finfo(start.dtype).eps * largest]
        # Without a new vector the space is exhausted, and the residuals are rounding.
        if bool((residuals <= tolerance * largest).all()) or not new.shape[1]:
            return values.cpu(), residuals.cpu()
        new = new - basis @ (basis.T @ new)
        new = new / new.norm(dim=0)
        basis = torch.cat([basis, new], 1)
    raise BadInput(
        f"after {steps} steps a residual of the {n} largest eigenvalues is still {float(residuals.max()):.1e}, above "
        f"{tolerance:g} times the largest magnitude; give more steps or a larger tolerance."
    )
